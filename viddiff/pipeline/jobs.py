"""The jobs of a process: it codes the groups of its share of the work, and follows the others."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from viddiff.encoder.coded_group import CodedGroup, GroupEncoder
from viddiff.encoder.grouping import Group
from viddiff.pipeline.division import Share, Unit


def jobs(groups: Iterable[Group], unit: Unit) -> Iterator[tuple[int, Iterator[Group]]]:
    """Groups by the number of their job: GOPs, or mini-GOPs with the keyframes before them."""
    for number, numbered in groupby(_numbered(groups, unit), key=itemgetter(0)):
        yield number, (group for _, group in numbered)


def _numbered(groups: Iterable[Group], unit: Unit) -> Iterator[tuple[int, Group]]:
    number = -1 if unit is Unit.GOP else 0
    for group in groups:
        number += group.key and unit is Unit.GOP
        yield number, group
        number += not group.key and unit is Unit.MINI_GOP


def coded_jobs(
    encoder: GroupEncoder, groups: Iterable[Group], share: Share
) -> Iterator[Iterator[CodedGroup]]:
    """Code the jobs of `share` in order. Take each job completely before the next."""
    for number, job in jobs(groups, share.division.unit):
        if share.has(number):
            yield coded_job(encoder, job)
        elif share.division.unit is Unit.MINI_GOP:
            for group in job:
                encoder.follow(group)


def coded_job(encoder: GroupEncoder, job: Iterable[Group]) -> Iterator[CodedGroup]:
    """Code the groups of a job."""
    for group in job:
        yield from encoder.encode(group)
    yield from encoder.flush()
