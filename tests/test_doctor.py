"""The doctor sees what is wrong and names the fix."""

import shutil
import sys
from collections import namedtuple

import pytest
import torch

from course_utils import doctor
from course_utils.doctor import Finding, Report, examine


def finding(topic: str) -> Finding:
    return next(found for found in examine().findings if found.topic == topic)


def test_a_sound_installation_is_healthy(monkeypatch):
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setattr(doctor, "_threads", lambda: ("", None))  # xdist workers may share cores
    report = examine()
    assert report.healthy, str(report)
    assert str(report).endswith("Everything is in order.")


def test_the_report_fits_a_screen():
    assert len(str(examine()).splitlines()) <= 24


def test_one_finding_to_fix_makes_the_report_unhealthy():
    report = Report((Finding("a", "well"), Finding("b", "ill", "mend it")))
    assert not report.healthy
    assert str(report).splitlines() == ["✓ a            well", "✗ b            ill", "    fix: mend it", "1 to fix."]


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "a-library-that-is-not-there"))
    found = finding("libraries")
    assert "a-library-that-is-not-there missing" in found.fix
    assert "make lab" in found.fix


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_PYTHON", (99, 0))
    assert "install Python" in finding("Python").fix


def test_a_torchvision_of_another_torch_is_told_as_a_broken_pair(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", broken)
    found = finding("torch pair")
    assert "operator torchvision::nms does not exist" in found.seen
    assert "as a pair from the same place" in found.fix


def test_a_torchvision_that_does_not_import_is_told_as_a_broken_pair(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    assert "as a pair" in finding("torch pair").fix


def test_more_threads_than_cores_are_named(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(doctor, "_cores", lambda: 2)
    assert "OMP_NUM_THREADS=2" in finding("threads").fix


def test_a_folder_of_data_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "gone"))
    found = finding("data")
    assert "gone" in found.seen
    assert "unset COURSE_DATA" in found.fix


def test_a_full_disk_is_named(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**8))
    found = finding("disk")
    assert found.seen.startswith("0.1 GB free")
    assert "free some space" in found.fix


def test_a_gpu_without_a_cuda_build_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "CUDA builds" in finding("GPU").fix


@pytest.mark.parametrize("check", ["_python", "_libraries", "_threads", "_bf16", "_gpu", "_data", "_disk"])
def test_a_check_that_fails_is_a_finding_and_not_a_crash(monkeypatch, check):
    def fall_ill():
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, check, fall_ill)
    ill = [found for found in examine().findings if "no such thing" in found.seen]
    assert len(ill) == 1
    assert ill[0].fix


def test_the_disk_of_a_folder_that_is_not_made_yet_is_its_parents(tmp_path):
    assert doctor._existing(tmp_path / "a" / "b") == tmp_path
