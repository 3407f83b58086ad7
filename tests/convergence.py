"""What an index must come to that began in the middle of a history and fetches the rest.

It must hold what the reference indexer makes of the whole history, but for what cannot be had or
known any more:

* of an account that its server does not give out (deactivated, suspended, taken down), what it
  wrote before the index began. What it wrote since came live;
* what events before the beginning said of accounts: that one was away, above all. As long as it is,
  its server gives out nothing that could be shown;
* `commit_*`, and the times of records that have no usable time of their own: their commit's stands
  in for it, and a repository does not tell when that was;
* notifications of the past. Nobody is told of what was written before the index began and never
  since. Of what was written before and since, somebody may be told or not, as a fetch may have come
  before the live event; if so, rightly. For the same reason it is not known by which pack somebody
  joined whose profile is from before, nor need anybody be told of a verification that came and went
  before the index had seen it.
"""

from collections.abc import Iterable, Sequence

from actors.atproto import frames
from actors.atproto.errors import WireError
from actors.atproto.events import Account, Commit, Event
from tests import tables
from tests.reference import Reference
from tests.reference_decode import parse_time
from tests.tables import Row, Tables

_TIMES = frozenset(("created_at", "sort_at", "verified_at"))
_COMMIT = frozenset(("commit_time", "commit_seq", "commit_rev"))
_PROFILE = "app.bsky.actor.profile/self"
_VERIFICATION = "/app.bsky.graph.verification/"


class History:
    """What was said before the index began, and the parts of what it has been told since.

    By the end of each part all has been fetched that can be.
    """

    def __init__(self, before: Sequence[bytes]) -> None:
        self.before = before
        self.since: list[Sequence[bytes]] = []
        # Accounts whose repository could not be had by the end of any part.
        self.away: set[str] = set()

    def goes_on(self, part: Sequence[bytes]) -> None:
        """Another part follows."""
        self.since.append(part)
        active: dict[str, bool] = {}
        for frame in (*self.before, *(frame for each in self.since for frame in each)):
            event = decoded(frame)
            if isinstance(event, Account):
                active[event.did] = event.active
        inactive = {did for did, is_active in active.items() if not is_active}
        self.away = inactive if len(self.since) == 1 else self.away & inactive

    def reference(self) -> Reference:
        """The reference indexer after all that can be had and known."""
        reference = Reference()
        for frame in self.before:
            event = decoded(frame)
            if isinstance(event, Commit) and event.did not in self.away:
                reference.frame(frame)
        for part in self.since:
            for frame in part:
                reference.frame(frame)
        for did, repo in reference.repos.items():
            # A repository that is out of step is fetched.
            repo.out_of_step = repo.out_of_step and did in self.away
        return reference

    def old(self) -> set[str]:
        """Records that were written before."""
        return set(_written(self.before))

    def touched(self) -> set[str]:
        """Records that were written, or deleted, since."""
        return {uri for part in self.since for uri in _written(part)}


def decoded(frame: bytes) -> Event | None:
    """The event of a frame; None for what breaks the protocol."""
    try:
        return frames.decode(frame)
    except WireError:
        return None


def _written(part: Iterable[bytes]) -> Iterable[str]:
    for event in map(decoded, part):
        if isinstance(event, Commit):
            yield from (f"at://{event.did}/{op.path}" for op in event.ops)


class Expectation:
    """What the tables must hold after a history.

    `dated_back`: all its records claim to be from before the index began. What a fetch brought
    before its event did then counts as of the past: nobody need have been told.
    """

    def __init__(self, history: History, *, dated_back: bool = False) -> None:
        reference = history.reference()
        self._dated_back = dated_back
        self.tables = reference.tables()
        self.uris = set(reference.records)
        self._timeless = {
            record.uri
            for record in reference.records.values()
            if parse_time(record.value.get("createdAt")) != record.created_at
        }
        self._unsure = reference.notices.unsure
        old, touched = history.old(), history.touched()
        self._past, self._again = old - touched, old & touched

    def differences(self, actual: Tables) -> list[str]:
        """What is wrong with these tables, a line each."""
        ours = {name: dict(rows) for name, rows in self.tables.items()}
        theirs = {name: dict(rows) for name, rows in actual.items()}
        self._leave_notices(ours["notifications"], theirs["notifications"])
        if self._dated_back:
            overtaken = {
                key[0]
                for rows in theirs.values()
                for key, row in rows.items()
                if "commit_seq" in row and row["commit_seq"] is None
            }
            for key, row in list(ours["notifications"].items()):
                record = row["engine_record_uri"]
                # Verifications do not say how they came.
                late = record in overtaken or _VERIFICATION in record
                if late and key not in theirs["notifications"]:
                    del ours["notifications"][key]
        self._leave_packs(ours["users"], theirs["users"])
        return tables.differences(self._comparable(ours), self._comparable(theirs))

    def _leave_notices(self, ours: tables.Rows, theirs: tables.Rows) -> None:
        for key in ours.keys() | theirs.keys():
            expected, found = ours.get(key), theirs.get(key)
            record = (expected or theirs[key])["engine_record_uri"]
            if key[0] in self._unsure:
                ours.pop(key, None)
                theirs.pop(key, None)
            elif found is None and (
                record in self._past | self._again
                or (expected is not None and expected["reason"] == "unverified")
            ):
                del ours[key]
            elif record in self._past:
                # Nobody is told of the past: what stands here is wrong.
                ours.pop(key, None)

    def _leave_packs(self, ours: tables.Rows, theirs: tables.Rows) -> None:
        for (did,), row in theirs.items():
            profile = f"at://{did}/{_PROFILE}"
            if row["engine_joined_via"] is None and profile in self._past | self._again:
                ours[did,] = {**ours[did,], "engine_joined_via": None}

    def _comparable(self, of: Tables) -> Tables:
        return {
            name: {key: self._row(key[0], row) for key, row in rows.items()}
            for name, rows in of.items()
        }

    def _row(self, key: str, row: Row) -> Row:
        left_out = _COMMIT
        if row.get("engine_record_uri", key.partition("#")[0]) in self._timeless:
            left_out |= _TIMES
        return {column: value for column, value in row.items() if column not in left_out}
