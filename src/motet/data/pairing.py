"""Which column each modality is read from, and in which sound or clip a text is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from motet.data.columns import modality_name
from motet.data.processor import Processor, spoken_in


def matched(
    modalities: Iterable[str], processors: Mapping[str, Processor]
) -> tuple[dict[str, str], dict[str, str]]:
    """modality -> the column that holds it, and modality -> the column of media that its text is said in.

    modalities: the columns of media and texts. Both are the same column where the text stands only
    in files beside the media.
    """
    by_name = {modality_name(column): column for column in modalities}
    columns, media = {}, {}
    for name, processor in processors.items():
        column = by_name.get(name)
        if column is None and processor.kind == "audio":
            column = by_name.get(name.removesuffix("_sound"))
        spoken = by_name.get(spoken_in(processor))
        if spoken is not None:
            media[name] = spoken
        if column is not None or spoken is not None:
            columns[name] = column or str(spoken)
    return columns, media
