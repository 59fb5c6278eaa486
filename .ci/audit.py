"""pip-audit over requirements.lock: known vulnerabilities fail, a database that cannot be reached is told.

pip-audit itself ends with 0 where it could look up nothing. Its options can follow, for instance another database:
`python .ci/audit.py --vulnerability-service osv`. .ci/accepted-vulnerabilities.txt lists those that are known and do no
harm here: an id, white space and the reason, a line each.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.lock"
ACCEPTED = HERE / "accepted-vulnerabilities.txt"
_SECONDS = 300


def accepted(path: Path = ACCEPTED) -> dict[str, str]:
    """The ids that are accepted, with the reason of each. Raises SystemExit for a line without a reason."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        known, _, reason = line.partition(" ")
        if not reason.strip():
            sys.exit(f"audit: {path}: {known} has no reason; write one behind it")
        found[known] = reason.strip()
    return found


def audit(lock: Path, options: list[str], known: dict[str, str]) -> tuple[str, int]:
    """What there is to say of the packages in `lock`, and the exit code: 1 for a vulnerability that is not accepted."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(lock), "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--aliases", "on", "--timeout", "15", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"audit: NOT DONE: the database did not answer within {_SECONDS} s", 0
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = done.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        return f"audit: NOT DONE: no database can be reached ({reason[0][:200]})", 0
    lines, failed = [], 0
    for package in packages:
        for vulnerability in package.get("vulns", []):
            ids = [vulnerability["id"], *vulnerability.get("aliases", [])]
            reason = next((known[one] for one in ids if one in known), None)
            failed += reason is None
            fix = ", ".join(vulnerability.get("fix_versions", [])) or "no version"
            said = f"accepted: {reason}" if reason else f"FOUND; fixed in {fix}"
            lines.append(f"audit: {package['name']} {package['version']}: {' '.join(ids)} {said}")
    unknown = sum("skip_reason" in package for package in packages)
    if unknown:
        how = "NOT DONE: the database knows none" if unknown == len(packages) else f"it knows {unknown} not"
        lines.append(f"audit: {len(packages)} packages; {how}")
    else:
        lines.append(f"audit: {len(packages)} packages, {failed} vulnerabilities that are not accepted")
    return "\n".join(lines), 1 if failed else 0


def main() -> None:
    said, code = audit(LOCK, sys.argv[1:], accepted())
    print(said)
    sys.exit(code)


if __name__ == "__main__":
    main()
