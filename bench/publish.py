"""`asv publish` with its scripts beside the page: `python -m bench.publish`.

The page of asv loads its scripts from other sites, and is empty where those cannot be reached. This command copies the
scripts from npm packages into `vendor/` in the published folder, and the page loads them from there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The npm package and the file for each address that the page loads, by the end of the address. Some files are not
# minified, and differ in size alone. stupidtable 1.0.1 is not on npm; 1.1.3 does the same for a plain table.
SCRIPTS = {
    "/jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "/flot/0.8.3/jquery.flot.min.js": ("jquery.flot@0.8.3", "jquery.flot.js"),
    "/flot/0.8.3/jquery.flot.time.min.js": ("jquery.flot@0.8.3", "jquery.flot.time.js"),
    "/flot/0.8.3/jquery.flot.selection.min.js": ("jquery.flot@0.8.3", "jquery.flot.selection.js"),
    "/flot/0.8.3/jquery.flot.categories.min.js": ("jquery.flot@0.8.3", "jquery.flot.categories.js"),
    "/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "/stupidtable/1.0.1/stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "/blueimp-md5/2.19.0/js/md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "/bootstrap@3.1.1/dist/js/bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "/bootstrap@3.1.1/dist/css/bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
# Folders that a style sheet needs.
FOLDERS = {"bootstrap@3.1.1": "dist/fonts"}

_ELSEWHERE = re.compile(r'<(?:script|link)\b[^>]*?(?:src|href)="(https?://[^"]+)"[^>]*>')
_CHECKED = re.compile(r' (?:integrity|crossorigin|referrerpolicy)="[^"]*"')


def main() -> int:
    """Publish, and return an exit status."""
    status = subprocess.run([sys.executable, "-m", "asv", "publish"], cwd=ROOT, check=False).returncode
    if status != 0:
        return status
    settings = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
    try:
        bring_scripts(ROOT / settings["html_dir"])
    except (OSError, RuntimeError, ValueError) as error:
        print(f"bench.publish: {error}", file=sys.stderr)
        return 1
    return 0


def bring_scripts(folder: Path) -> None:
    """Copy the scripts of a published page into its folder, and change the page to load them from there."""
    page = folder / "index.html"
    html = page.read_text(encoding="utf-8")
    for tag in list(_ELSEWHERE.finditer(html)):
        package, file = _source(tag[1])
        local = f"vendor/{package}/{file}"
        if not (folder / local).exists():
            unpack(package, folder / "vendor" / package)
        html = html.replace(tag[0], _CHECKED.sub("", tag[0]).replace(tag[1], local))
    page.write_text(html, encoding="utf-8")
    print(f"{page} needs no other site: its scripts are in {folder / 'vendor'}")


def unpack(package: str, folder: Path) -> None:
    """Put the files of an npm package that the page needs into a folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm: expected to be installed, got nothing; install Node.js, or use plain asv publish")
    with tempfile.TemporaryDirectory() as packed:
        done = subprocess.run([npm, "pack", package], cwd=packed, capture_output=True, text=True, check=False)
        archives = list(Path(packed).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise RuntimeError(f"npm pack {package}: expected a package, got status {done.returncode}\n{done.stderr}")
        wanted = {file for name, file in SCRIPTS.values() if name == package}
        with tarfile.open(archives[0]) as archive:
            for member in archive.getmembers():
                name = member.name.partition("/")[2]
                if member.isfile() and (name in wanted or name.startswith(FOLDERS.get(package, "\0"))):
                    path = folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.extractfile(member).read())
    missing = [file for file in wanted if not (folder / file).exists()]
    if missing:
        raise RuntimeError(f"{package}: expected the file {missing[0]}, got a package without it")


def _source(address: str) -> tuple[str, str]:
    for end, source in SCRIPTS.items():
        if address.endswith(end):
            return source
    raise ValueError(f"index.html: expected scripts of SCRIPTS in {Path(__file__).name}, got {address}; add it there")


if __name__ == "__main__":
    sys.exit(main())
