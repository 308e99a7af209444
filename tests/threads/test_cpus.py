"""cpus: the quota is found in faked /proc and /sys trees, laid out as real machines lay them out."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import pytest

from dataflow.threads import cpus

V2 = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
CPUSET = "33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
HYBRID_V2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def machine(root: Path, membership: str, mountinfo: str, files: dict[str, str]) -> Path:
    """A faked root directory; `files` are given below sys/fs/cgroup."""
    tree = {"proc/self/cgroup": membership, "proc/self/mountinfo": mountinfo}
    tree |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1(directory: str, quota: object, period: object = 100000) -> dict[str, str]:
    return {f"{directory}/cpu.cfs_quota_us": str(quota), f"{directory}/cpu.cfs_period_us": str(period)}


# ---------------------------------------------------------------- version 2


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("150000 100000", 1.5),
        ("20000 10000", 2.0),
        ("150000", None),  # the kernel always prints both
        ("max 100000", None),
        ("max", None),
        ("", None),
        ("-1 100000", None),
        ("0 100000", None),
        ("100000 0", None),
        ("1.5 1", None),
        ("1 2 3", None),
        ("lots of time", None),
        ("9" * 400 + " 1", None),
        ("9" * 5000 + " 1", None),
    ],
)
def test_what_cpu_max_says(tmp_path, text, quota):
    assert cpus.cgroup_quota(machine(tmp_path, "0::/web", V2, {"web/cpu.max": text})) == quota


def test_the_tightest_ancestor_counts(tmp_path):
    files = {
        "a/cpu.max": "400000 100000",
        "a/b/cpu.max": "150000 100000",
        "a/b/c/cpu.max": "max 100000",
        "a/b/c/d/cpu.max": "300000 100000",
        "a/b/other/cpu.max": "10000 100000",
    }
    assert cpus.cgroup_quota(machine(tmp_path, "0::/a/b/c/d", V2, files)) == 1.5


def test_our_own_cgroup_may_be_the_tightest(tmp_path):
    files = {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}
    assert cpus.cgroup_quota(machine(tmp_path, "0::/a/b", V2, files)) == 0.5


def test_an_unreadable_ancestor_does_not_hide_the_others(tmp_path):
    root = machine(tmp_path, "0::/a/b", V2, {"a/cpu.max": "200000 100000"})
    (root / "sys/fs/cgroup/a/b/cpu.max").mkdir(parents=True)  # a directory: reading it is an OSError
    assert cpus.cgroup_quota(root) == 2.0


def test_a_cgroup_namespace_shows_its_own_root(tmp_path):
    assert cpus.cgroup_quota(machine(tmp_path, "0::/", V2, {"cpu.max": "200000 100000"})) == 2.0


def test_names_with_colons_blanks_and_stray_bytes(tmp_path):
    mount = V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040mount")
    root = machine(tmp_path, "", mount, {})
    (root / "proc/self/cgroup").write_bytes(b"0::/a:b \xff\x0c\n")
    directory = os.fsencode(root / "sys/fs/cgroup/my mount") + b"/a:b \xff\x0c"
    os.makedirs(directory)
    with open(directory + b"/cpu.max", "wb") as file:
        file.write(b"70000 20000\n")
    assert cpus.cgroup_quota(root) == 3.5


# ---------------------------------------------------------------- version 1


def test_version_1(tmp_path):
    membership = "5:cpuset:/elsewhere\n4:cpu,cpuacct:/job\n1:name=cpu:/x"
    root = machine(tmp_path, membership, f"{CPUSET}\n{V1}", v1("cpu,cpuacct/job", 250000))
    assert cpus.cgroup_quota(root) == 2.5


def test_version_1_ancestors(tmp_path):
    files = v1("cpu,cpuacct/a", 120000) | v1("cpu,cpuacct/a/b", -1) | v1("cpu,cpuacct", -1)
    assert cpus.cgroup_quota(machine(tmp_path, "4:cpu,cpuacct:/a/b", V1, files)) == 1.2


@pytest.mark.parametrize(("quota", "period"), [(-1, 100000), ("", ""), ("x", 1), (1, 0), (1, "y"), ("1 2", 3)])
def test_version_1_without_a_limit(tmp_path, quota, period):
    assert cpus.cgroup_quota(machine(tmp_path, "4:cpu,cpuacct:/a", V1, v1("cpu,cpuacct/a", quota, period))) is None


def test_version_1_with_half_of_its_files(tmp_path):
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "100000"}
    assert cpus.cgroup_quota(machine(tmp_path, "4:cpu,cpuacct:/a", V1, files)) is None


# ---------------------------------------------------------------- hybrid


def test_hybrid_with_the_controller_in_version_1(tmp_path):
    membership = "4:cpu,cpuacct:/job\n0::/user.slice"
    files = v1("cpu,cpuacct/job", 300000) | {"unified/user.slice/cgroup.procs": "1"}
    assert cpus.cgroup_quota(machine(tmp_path, membership, f"{V1}\n{HYBRID_V2}", files)) == 3.0


def test_hybrid_with_the_controller_in_version_2(tmp_path):
    membership = "5:cpuset:/\n0::/user.slice"
    files = {"unified/user.slice/cpu.max": "100000 100000"}
    assert cpus.cgroup_quota(machine(tmp_path, membership, f"{CPUSET}\n{HYBRID_V2}", files)) == 1.0


# ---------------------------------------------------------------- containers


@pytest.mark.parametrize("membership", ["/docker/1f", "/docker/1f/"])
def test_a_container_whose_mount_begins_at_its_own_cgroup(tmp_path, membership):
    mount = V1.replace(" / ", " /docker/1f ", 1)
    root = machine(tmp_path, f"4:cpu,cpuacct:{membership}", mount, v1("cpu,cpuacct", 50000))
    assert cpus.cgroup_quota(root) == 0.5


def test_a_child_cgroup_inside_a_container(tmp_path):
    mount = V1.replace(" / ", " /docker/1f ", 1)
    files = v1("cpu,cpuacct", 150000) | v1("cpu,cpuacct/worker", 200000)
    assert cpus.cgroup_quota(machine(tmp_path, "4:cpu,cpuacct:/docker/1f/worker", mount, files)) == 1.5


@pytest.mark.parametrize(
    ("membership", "mount_root"),
    [
        ("/kubepods/pod7/web", "/kubepods/pod7/sidecar"),  # a path of the host that this mount does not show
        ("/kubepods/pod7", "/kubepods/pod77"),  # the same letters are not the same cgroup
        ("/kubepods/pod7/web", "/"),  # the host's path in a mount that begins lower than it says
        ("/", "/.."),  # mounted in the parent of our cgroup namespace
        ("/../other", "/"),  # moved out of the cgroup namespace
    ],
)
def test_a_cgroup_that_the_mount_does_not_show_falls_back_to_the_mount_point(tmp_path, membership, mount_root):
    root = machine(tmp_path / "root", f"0::{membership}", V2.replace(" / ", f" {mount_root} ", 1), {})
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    for outside in ("other", "sys/fs/other"):  # must not be reached through the ".."
        (root / outside).mkdir()
        (root / outside / "cpu.max").write_text("10000 100000\n")
    assert cpus.cgroup_quota(root) == 1.5


def test_of_two_mounts_the_one_that_shows_our_cgroup_is_read(tmp_path):
    foreign = "50 31 0:27 /pods/other /sys/fs/cgroup/foreign rw - cgroup2 cgroup2 rw"
    files = {"foreign/cpu.max": "10000 100000", "pods/web/cpu.max": "200000 100000"}
    for order in (f"{foreign}\n{V2}", f"{V2}\n{foreign}"):
        assert cpus.cgroup_quota(machine(tmp_path, "0::/pods/web", order, files)) == 2.0


# ---------------------------------------------------------------- nothing to be found


def test_no_files_at_all(tmp_path):
    assert cpus.cgroup_quota(tmp_path) is None
    assert cpus.cgroup_quota(tmp_path / "missing") is None


@pytest.mark.parametrize("membership", ["", ":", "0::", "0::relative", "::::", "\0", "0::/a\0b", "no colons"])
@pytest.mark.parametrize("mountinfo", ["", " - ", "1 2 3", V2, "a b c d e - cgroup2", V2.replace("/sys", "//sys")])
def test_nonsense_is_no_limit(tmp_path, membership, mountinfo):
    assert cpus.cgroup_quota(machine(tmp_path, membership, mountinfo, {})) is None


def test_nothing_is_remembered(tmp_path):
    root = machine(tmp_path, "0::/web", V2, {"web/cpu.max": "100000 100000"})
    assert cpus.cgroup_quota(root) == 1.0
    (root / "sys/fs/cgroup/web/cpu.max").write_text("200000 100000\n")
    assert cpus.cgroup_quota(root) == 2.0


# ---------------------------------------------------------------- affinity and the sum of it


def test_affinity_is_the_process_s_own(monkeypatch):
    asked = []

    def sched_getaffinity(pid):
        asked.append(pid)
        return {0, 5, 7}

    monkeypatch.setattr(os, "sched_getaffinity", sched_getaffinity, raising=False)
    assert cpus.affinity() == 3
    assert asked == [os.getpid()]


def test_affinity_without_the_system_call(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpus.affinity() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.affinity() == 1


def test_affinity_that_a_sandbox_refuses(monkeypatch):
    def refuse(pid):
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpus.affinity() == 6


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "usable"),
    [
        (8, "max 100000", 8),
        (8, "300000 100000", 3),
        (8, "299999 100000", 2),  # rounded down: see cpus._within
        (8, "10000 100000", 1),
        (2, "300000 100000", 2),
    ],
)
def test_usable(tmp_path, monkeypatch, affinity, cpu_max, usable):
    monkeypatch.setattr(cpus, "affinity", lambda: affinity)
    assert cpus.usable(machine(tmp_path, "0::/", V2, {"cpu.max": cpu_max})) == usable


def test_this_very_machine():
    assert 1 <= cpus.usable() <= cpus.affinity()


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(cpus)
    assert results.attempted
    assert not results.failed
