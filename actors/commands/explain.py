"""`run.py explain`: everything that is known of one record or account."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from actors.commands.opening import opened, shared_options
from actors.commands.waiting import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.store.explanation import Account, Explanation, Network, Thread

__all__ = ["explain", "lines"]

EXIT_UNKNOWN: Final = 1
# Longer values of a row are cut, for people.
SHOWN_VALUE: Final = 120


@click.command()
@click.argument("subject", metavar="URI|DID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@shared_options
@click.pass_context
def explain(context: click.Context, /, subject: str, as_json: bool, **given: Any) -> None:
    """Say what is known of a record or an account; exit 1 where nothing is.

    Its row, or why there is none: its drop, what it waits for, its dead letter, its author's
    account; its flags and counters, as stored and as they come out now.
    """
    from actors.commands.letters import holds
    from actors.store.explain import explain as find_out
    from actors.store.subjects import resolve

    with opened(context, given) as (_settings, _conninfo, connection):
        named = resolve(connection, subject)
        found = find_out(connection, named, holds)
    if as_json:
        click.echo(json.dumps(plain(found)))
    else:
        for line in lines(found):
            click.echo(line)
    if not found.known:
        context.exit(EXIT_UNKNOWN)


def plain(found: Explanation) -> dict[str, Any]:
    """The explanation as JSON types, with its verdict."""
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(found)
    return {"subject": found.subject, "known": found.known, "verdict": found.verdict(), **told}


def lines(found: Explanation) -> Iterator[str]:
    """The explanation for people: the answer first, then what it rests on."""
    yield found.subject
    yield f"  {found.verdict()}"
    yield from _record(found)
    if found.thread is not None:
        yield from _thread(found.thread)
    counts = any(counter.stored is not None or counter.counted for counter in found.counters)
    for counter in found.counters if counts else ():
        stored = "no row" if counter.stored is None else str(counter.stored)
        if counter.stored == counter.counted or (counter.stored is None and not counter.counted):
            yield f"  {counter.name}: {stored}"
        else:
            yield f"  {counter.name}: {stored}, BUT {counter.counted} when counted now"
    for wait in found.waits_for:
        of = "" if wait.uri == found.subject else f"{wait.uri} "
        yield f"  {of}waits for {wait.awaited} ({wait.kind}, since {wait.since:%Y-%m-%d %H:%M:%S})"
    if found.awaited_by_count:
        yield f"  {found.awaited_by_count} operations wait for it, the oldest:"
        for wait in found.awaited_by[:5]:
            yield f"    {wait.uri} ({wait.kind}, since {wait.since:%Y-%m-%d %H:%M:%S})"
    for notified in found.notifications:
        read = "read" if notified.is_read else "unread"
        yield f"  notified {notified.recipient} ({notified.reason}, {read})"
    if found.taken_down:
        yield "  it is taken down"
    for purge in found.purges:
        yield (
            f"  being removed: {purge.subject} ({purge.reason}), {purge.removed} so far,"
            f" since {purge.since:%Y-%m-%d %H:%M:%S}"
        )
    for drop in found.drops:
        yield f"  dropped {drop.at:%Y-%m-%d %H:%M:%S}: {drop.subject}: {drop.reason}: {drop.detail}"
    for letter in found.letters:
        yield f"  dead letter {letter.id} of {letter.at:%Y-%m-%d %H:%M:%S}: {letter.reason}"
        yield f"    it holds {letter.holds}"
    yield from _account(found.author)


def _record(found: Explanation) -> Iterator[str]:
    if found.row is not None:
        values = found.row.values
        if values.get("commit_rev"):
            yield (
                f"  came with commit seq {values['commit_seq']} rev {values['commit_rev']}"
                f" of {values['commit_time']}"
            )
        if values.get("indexed_at"):
            yield f"  written {values['indexed_at']}"
        for name, value in values.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                shown = text if len(text) <= SHOWN_VALUE else text[:SHOWN_VALUE] + "..."
                yield f"    {name} = {shown}"
    if found.aside is not None:
        yield f"  kept aside in engine_duplicates for {found.aside.table}: {found.aside.thing}"
    for uri in found.holds_aside:
        yield f"  stands for the duplicate {uri}"
    for table, count in found.records.items():
        yield f"  {table}: {counted(count, 'row') if count <= 10_000 else 'over 10000 rows'}"


def _thread(thread: Thread) -> Iterator[str]:
    def there(uri: str | None, is_there: bool) -> str:
        return f"{uri} ({'indexed' if is_there else 'not indexed'})"

    if thread.parent is not None:
        invalid = ", itself no valid reply" if thread.parent_invalid else ""
        yield f"  parent: {there(thread.parent, thread.parent_there)}{invalid}"
        if thread.parent_root not in (None, thread.root):
            yield f"    whose root is {thread.parent_root}"
        yield f"  root: {there(thread.root, thread.root_there)}"
        gate = f"allows {json.dumps(thread.gate_allow)}" if thread.gate_there else "there is none"
        yield f"  thread gate: {gate}"
    if thread.quoted is not None:
        yield f"  quotes: {there(thread.quoted, thread.quoted_there)}"
        yield f"  post gate: {json.dumps(thread.embedding_rules)}"
    for flag in thread.flags:
        now = "" if flag.stored == flag.computed else f", BUT {_yes(flag.computed)} when judged now"
        yield f"  {flag.name}: {_yes(flag.stored)}{now}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _account(author: Account) -> Iterator[str]:
    handle = f" ({author.handle})" if author.handle else ""
    yield f"  author {author.did}{handle}"
    if not author.known:
        yield "    nothing is known of it"
        yield from _network(author.network)
        return
    yield f"    account: {author.status or 'active'}{'' if author.has_row else ', no users row'}"
    if author.opted_out:
        yield "    has forbidden the collection of data"
    if author.taken_down:
        yield "    taken down"
    yield from _network(author.network)
    repository = author.repository
    if repository is None:
        yield "    no commit of it has been applied"
        return
    yield f"    last applied rev {repository.rev}"
    if repository.out_of_step:
        yield "    out of step: commits were missed, or not applied"
    if repository.withheld:
        yield "    withheld: some of its records were not stored, as it or the operator forbids it"


def _network(network: Network) -> Iterator[str]:
    if network.left_out:
        yield "    none of those whom this index is of (personal.accounts)"
    parking = network.parking
    if parking is not None:
        lost = ", some were given up" if parking.overflowed else ""
        yield (
            f"    {counted(parking.events, 'live event')} of it wait ({parking.reason}), since"
            f" {parking.since:%Y-%m-%d %H:%M:%S}{', being applied now' * parking.draining}{lost}"
        )
    for fetch in network.fetches:
        again = f", next at {fetch.next_try:%Y-%m-%d %H:%M:%S}" * (fetch.state == "waiting")
        last = f", {fetch.reason}" if fetch.reason else ""
        yield (
            f"    fetch of {fetch.kind} {fetch.key} ({fetch.cause}): {fetch.state},"
            f" {counted(fetch.attempts, 'attempt')}{last}{again}"
        )
    identity = network.identity
    if identity is None:
        return
    looked = identity.checked_at
    yield (
        f"    identity: {'not looked at yet' if looked is None else f'of {looked:%Y-%m-%d %H:%M}'},"
        f" server {identity.server or 'not known'}, key {identity.key or 'not known'}"
        f"{f', {identity.problem}' if identity.problem else ''},"
        f" looked at again at {identity.next_check:%Y-%m-%d %H:%M:%S}"
    )
