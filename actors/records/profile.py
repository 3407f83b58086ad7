"""`app.bsky.actor.profile`: what an account says of itself, kept in its `users` row."""

from actors.records import fields
from actors.records.record import Basis, Json, RecordType, Row, Source, Wait

PACK_COLLECTION = "/app.bsky.graph.starterpack/"


def build(source: Source, data: Json) -> Row:
    """Make the profile columns of a user; the handle is never a profile's to set."""
    created = fields.parse_time(data.get("createdAt"))
    if created != fields.record_time(data, source):
        # A users row may be made by whoever mentions the DID first: without a date of its own that
        # holds it has the same one whoever that was.
        created = 0
    joined, subjects = _pack(data)
    values = (
        source.did,
        fields.optional_text(data, "displayName"),
        fields.blob_cid(data, "avatar"),
        fields.blob_cid(data, "banner"),
        fields.optional_text(data, "description"),
        fields.encode_json(data),
        fields.optional_json(fields.optional_mapping(data, "pinnedPost")),
        created,
        joined,
    )
    waits = () if joined is None else (Wait(joined, "joined"),)
    return Row(values, (True, joined), subjects=subjects, waits=waits, notifies=joined is not None)


def _pack(data: Json) -> tuple[str | None, tuple[str, ...]]:
    """The starter pack that the account joined by, and whose it is."""
    reference = fields.optional_mapping(data, "joinedViaStarterPack")
    if reference is None:
        return None, ()
    pack, _cid, author = fields.strong_ref(data, "joinedViaStarterPack")
    return (pack, (author,)) if PACK_COLLECTION in pack else (None, ())


def carry(before: Basis | None, row: Row) -> Row:
    """Keep the pack only of the first version of a profile, while later ones name the same.

    Nobody joins twice: a later version that names a pack tells nobody. Where no version is known
    and this is a later one, or one of the past, the first one is not known either.
    """
    if before is None or not before[0]:
        if not row.past:
            return row
    elif before[1] == row.basis[1]:
        return row
    return row._replace(
        values=(*row.values[:-1], None), basis=(True, None), waits=(), notifies=False
    )


def key(_uri: str, did: str, _rkey: str) -> str:
    """Key of the row: the account."""
    return did


def cleared(did: str) -> Row:
    """Make the row of an account that says nothing of itself any more."""
    return Row((did, None, None, None, None, None, None, 0, None), (False, None))


PROFILE = RecordType(
    collection="app.bsky.actor.profile",
    table="users",
    columns=(
        "did",
        "display_name",
        "avatar_url",
        "banner_url",
        "description",
        "profile_record",
        "pinned_post",
        "created_at",
        "engine_joined_via",
    ),
    build=build,
    basis_sql=("profile_record IS NOT NULL", "engine_joined_via"),
    key_column="did",
    key=key,
    only_key="self",
    cleared=cleared,
    carry=carry,
)
