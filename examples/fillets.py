"""A data set of your own in a few lines: the acted dialogues of the game Fish Fillets.

Needs Debian's fillets-ng-data and fillets-ng-data-cs (or -nl): 1,700 spoken lines with their text in
Czech (or Dutch) and in English. Writes a table; `motet fit fillets/cs.csv` trains search on it.
"""

import csv
import re
import shutil
import sys
from pathlib import Path

GAME = Path("/usr/share/games/fillets-ng")
LINE = re.compile(r'dialogId\("([^"]+)", *"[^"]*", *"((?:[^"\\]|\\.)*)"\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)')


def main(language: str = "cs", out: Path = Path("fillets")) -> None:
    if not any(GAME.glob(f"sound/*/{language}/*.ogg")):
        sys.exit(f"skipped: {GAME} has no {language!r} speech. apt-get install fillets-ng-data-{language}")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for script in sorted(GAME.glob(f"script/*/dialogs_{language}.lua")):
        level = script.parent.name
        for id, english, own in LINE.findall(script.read_text("utf-8")):
            sound = GAME / "sound" / level / language / f"{id}.ogg"
            if sound.is_file():
                copy = out / level / sound.name  # media cells are paths below the table's folder
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(sound, copy)
                rows.append((f"{level}/{id}", copy.relative_to(out), own, english, level))
    with (out / f"{language}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "speech", "caption_own", "caption", "group"), *rows])
    print(f"{out / language}.csv: {len(rows)} lines")


if __name__ == "__main__":
    main(*sys.argv[1:2])
