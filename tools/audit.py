"""Ask whether a locked package has a known vulnerability: pip-audit over requirements.lock.

pip-audit ends with 0 also where it could reach nobody and knows nothing. Here that is said, and the exit code is 2.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 600


def verdict(found: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit code and lines for what pip-audit says as JSON: 0 nothing known, 1 something known, 2 not all could be asked."""
    packages = found["dependencies"]
    asked = [one for one in packages if "skip_reason" not in one]
    known = [(one, vulnerability) for one in asked for vulnerability in one["vulns"]]
    lines = [f"{one['name']} {one['version']}: {vulnerability['id']}; mended in: "
             f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}" for one, vulnerability in known]
    lines.append(f"{len(packages)} locked packages, {len(asked)} of them known to the advisories, {len(known)} vulnerabilities")
    if known:
        return 1, [*lines, "next: make lock, then make test"]
    if not asked or len(asked) < len(packages):
        return 2, [*lines, "not all could be asked about: nothing is known of the others. Try again where the internet is."]
    return 0, lines


def main() -> int:
    argv = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "requirements.lock"), "--require-hashes",
            "--disable-pip", "--format=json", "--progress-spinner=off"]
    print("audit: asking for each locked package (usually 20 to 60 s)", file=sys.stderr, flush=True)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    try:
        code, lines = verdict(json.loads(done.stdout))
    except ValueError:
        code, lines = 2, [*done.stderr.strip().splitlines()[-1:], "the advisories could not be reached: nothing is known"]
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
