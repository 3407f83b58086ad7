"""Words, texts and rich text for the records of the synthetic network."""

import random
from typing import Any, Final

_TEXT: Final = (
    "the of and to a in is it that for on with as was at by this we you are be have not from they "
    "but what there one all can out up who about when make like time just know people into year "
    "good some could them see other than then now look only come over think also back after use "
    "how our work first well way even new want because any these give day most us morning coffee "
    "garden river mountain window letter music paper cloud winter summer rain train bridge harbour "
    "keyboard server signal orbit planet comet engine piano violin recipe bread butter tea lemon "
    "grüße naïve café señor straße 你好 世界 こんにちは привет мир 안녕 🌱 🦋 🎉 ✨ 👩‍🚀 ☕"
)
WORDS: Final = _TEXT.split()
LANGUAGES: Final = ("en", "en", "en", "en", "ja", "pt", "de", "es", "fr", "ko", "en-GB")
TAGS: Final = (
    "art",
    "news",
    "music",
    "birds",
    "photography",
    "python",
    "science",
    "写真",
    "gardens",
)


def words(chance: random.Random, least: int, most: int) -> str:
    """Some words, in no order."""
    return " ".join(chance.choices(WORDS, k=chance.randint(least, most)))


def rich_text(chance: random.Random, did: str | None) -> tuple[str, list[dict[str, Any]]]:
    """A text with one facet: a mention where a DID is given, else a link or a tag."""
    start = words(chance, 1, 20) + " "
    if did is not None:
        shown = f"@{did[-8:]}.network.test"
        feature = {"$type": "app.bsky.richtext.facet#mention", "did": did}
    elif chance.random() < 0.5:
        tag = chance.choice(TAGS)
        shown, feature = f"#{tag}", {"$type": "app.bsky.richtext.facet#tag", "tag": tag}
    else:
        shown = f"example.com/{chance.randrange(10_000)}"
        feature = {"$type": "app.bsky.richtext.facet#link", "uri": f"https://{shown}"}
    begin = len(start.encode())
    index = {"byteStart": begin, "byteEnd": begin + len(shown.encode())}
    facet = {"$type": "app.bsky.richtext.facet", "index": index, "features": [feature]}
    return f"{start}{shown} {words(chance, 1, 8)}", [facet]
