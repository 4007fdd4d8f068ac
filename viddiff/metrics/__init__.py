"""Measures of quality: PSNR, SSIM, their pooling over frames, and BD-rates."""
