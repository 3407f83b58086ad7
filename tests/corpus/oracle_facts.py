"""What a difference is explained by, and what an explanation is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tests.corpus.oracle_events import Events
from tests.corpus.oracle_tables import OURS, Difference, Row, Rows, Sides

Tables = dict[str, Rows]


@dataclass(frozen=True)
class Facts:
    """What checks look at."""

    sides: Sides
    events: Events

    @cached_property
    def differences(self) -> dict[tuple[str, str, str], Difference]:
        """All differences by table, key, column."""
        return {
            (difference.table, difference.key, difference.column): difference
            for difference in self.sides.differences()
        }

    def row(self, difference: Difference) -> Row:
        """The row that differs: ours, or the other side's where we have none."""
        table, key = difference.table, difference.key
        return self.sides.ours[table].get(key) or self.sides.theirs[table][key]

    def only(self, side: str, table: str) -> list[Row]:
        """The rows of a table that one side alone has."""
        rows = self.sides.ours if side == OURS else self.sides.theirs
        others = self.sides.theirs if side == OURS else self.sides.ours
        return [row for key, row in rows[table].items() if key not in others[table]]

    def judged_here_alone(self, flag: str) -> list[Row]:
        """Posts that are flagged here and not there."""
        return self._flagged(self.sides.ours, self.sides.theirs, flag)

    def judged_there_alone(self, flag: str) -> list[Row]:
        """Posts that are flagged there and not here."""
        return self._flagged(self.sides.theirs, self.sides.ours, flag)

    @staticmethod
    def _flagged(by: Tables, not_by: Tables, flag: str) -> list[Row]:
        return [
            row
            for uri, row in by["post"].items()
            if row[flag] == "t" and not_by["post"].get(uri, {}).get(flag) == ""
        ]


Check = Callable[[Difference, Facts], bool]


@dataclass(frozen=True)
class Reason:
    """Why differences of one column of a table are right: it covers `count` of them."""

    why: str
    table: str
    column: str
    count: int
    holds: Check
