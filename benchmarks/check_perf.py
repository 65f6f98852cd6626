"""`etcdctl check perf --load=s` against three members: etcd's own opinion of what is fast enough.

make check-perf
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from compare import ours
from etcd_cluster import TOOLS


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory, ours(Path(directory)) as (endpoints, _):
        words = [str(TOOLS / "etcdctl"), f"--endpoints={','.join(endpoints)}", "check", "perf", "--load=s"]
        sys.exit(subprocess.run([*words, *sys.argv[1:]], check=False).returncode)


if __name__ == "__main__":
    main()
