"""Files on servers: S3 buckets, and machines that SFTP reaches."""
