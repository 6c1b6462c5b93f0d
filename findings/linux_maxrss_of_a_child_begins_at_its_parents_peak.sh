#!/bin/sh
# On Linux `ru_maxrss` of a child begins at its parent's peak, memory that the parent gave back long ago included, when the child was started by vfork or
# posix_spawn, as CPython's subprocess does; after fork and exec it is the child's own. So a test of a child's memory by getrusage can fail for what the test
# itself used, changes with `preexec_fn`, and measures right behind `sh -c`. VmHWM is the child's own in each case. Needs: Linux, python3 of 3.10 or newer.
# Exits 0 when the behaviour is as told, 1 when it is another, 2 when it cannot be tried.
set -eu
grep -q VmHWM /proc/self/status 2>/dev/null && python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || exit 2

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/peak.py" <<'PY'
import resource

high = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, high // 1024)
PY
cat >"$folder/try.py" <<'PY'
import mmap, os, subprocess, sys

child = [sys.executable, "-S", sys.argv[1]]

def by_posix_spawn():
    read, write = os.pipe()
    process = os.posix_spawn(child[0], child, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    os.close(write)
    os.waitpid(process, 0)
    with open(read) as output:
        return output.read()

def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout

memory = mmap.mmap(-1, 400 << 20)
memory.write(bytes(400 << 20))
memory.close()

as_told = True
for how, start, takes_the_parents in (
    ("subprocess.run", lambda: run(child), True),
    ("os.posix_spawn", by_posix_spawn, True),
    ("subprocess.run with preexec_fn (fork)", lambda: run(child, preexec_fn=lambda: None), False),
    ("sh -c", lambda: run(["sh", "-c", '"$@"; exit $?', "sh", *child]), False),
):
    maxrss, high = map(int, start().split())
    print(f"seen: {how}: ru_maxrss {maxrss} MiB, VmHWM {high} MiB")
    as_told &= high < 100 and (maxrss > 400 if takes_the_parents else maxrss < 100)
sys.exit(0 if as_told else 1)
PY
echo "version: Linux $(uname -r) $(uname -m), $(python3 --version)"
echo "behaviour: a child that uses some 10 MiB, of a parent that held and gave back 400 MiB, has that peak as ru_maxrss when started by vfork, not by fork"
python3 "$folder/try.py" "$folder/peak.py" 2>"$folder/errors" || {
    status=$?
    cat "$folder/errors" >&2
    grep -q Traceback "$folder/errors" && exit 2
    exit $status
}
