"""The tables of docs/flags.md, made from what the programs say of themselves.

    flags_document.py BIN FILE [--write]

Ends with 1, and says how, where the file's tables are not what `BIN/PROGRAM --help` says; --write puts them right. A table stands between
`<!-- PROGRAM -->` and `<!-- end -->`.
"""

import difflib
import re
import subprocess
import sys

PART = re.compile(r"(<!-- (lockstep-\w+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)
FLAG = re.compile(r"^  (-\S(?:[^ ]| (?! ))*)(?: {2,}(\S.*))?$")
TOLD_OF_ALL = {"--help", "--version"}


def options(text):
    """[what stands left, the description] of each option in a help text of CLI11."""
    found = []
    for line in text.split("\n"):
        if match := FLAG.match(line):
            found.append([match[1], match[2] or ""])
        elif found and line.startswith(" " * 20) and line.strip():
            found[-1][1] = (found[-1][1] + " " + line.strip()).strip()
    return found


def row(left, description):
    names, _, rest = left.partition(" ")
    name = names.split(",")[-1]
    environment = re.search(r"\(Env:(\w+)\)", rest)
    values = re.search(r"[A-Z]+:\{([^}]*)\}", rest)
    limits = re.search(r" in \[(\S+) - (\S+)\]", rest)
    default = re.search(r"(?:^[A-Z]+|\}|\])=(\S+)", rest)
    if "REQUIRED" in rest:
        shown = "required"
    elif default:
        shown = f"`{default[1]}`"
    else:
        shown = "" if rest else "off"
    if values and values[1].split(",")[0] not in description:
        description += f": {values[1].replace(',', ', ')}"
    if limits:
        description += f" ({limits[1]} to {limits[2]})"
    return name, f"| `{name}` | {shown} | {f'`{environment[1]}`' if environment else ''} | {description.replace('|', chr(92) + '|')} |\n"


def table(text):
    rows = [row(*option) for option in options(text)]
    return "| flag | default | environment | |\n|---|---|---|---|\n" + "".join(line for name, line in rows if name not in TOLD_OF_ALL)


def filled(document, help_of):
    return PART.sub(lambda part: part[1] + table(help_of(part[2])) + part[4], document)


def main():
    folder, path = sys.argv[1:3]
    with open(path, encoding="utf-8") as file:
        before = file.read()
    after = filled(before, lambda program: subprocess.run([f"{folder}/{program}", "--help"], capture_output=True, text=True, check=True).stdout)
    if before == after:
        return 0
    if sys.argv[3:] == ["--write"]:
        with open(path, "w", encoding="utf-8") as file:
            file.write(after)
        return 0
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), path, "what the programs say"))
    print(f"\nset it right with: python3 {sys.argv[0]} {folder} {path} --write")
    return 1


if __name__ == "__main__":
    sys.exit(main())
