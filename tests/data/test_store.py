"""Files are found in order, downloaded whole or not at all, checked on every use; $COURSE_DATA is never written."""

import hashlib
import stat

import pytest

from course_utils.data import store
from course_utils.data.store import DataError, RemoteFile, fetch, find

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def file(server):
    server.files["/set.bin"] = CONTENT
    return RemoteFile("set/set.bin", (f"{server.url}/set.bin",), hashlib.md5(CONTENT).hexdigest())


def put(folder, file, content=CONTENT):
    path = folder / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_lands_in_the_own_folder_whole_and_readable_by_all(home, file, capfd):
    (path,) = fetch("set", [file])
    assert path == home.own / "set/set.bin"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    assert files_in(home.own) == [path]
    assert "100%" in capfd.readouterr().err  # the progress bar


def test_what_was_downloaded_once_is_not_asked_for_again(home, file, server):
    assert fetch("set", [file]) == fetch("set", [file])
    assert server.asked == ["/set.bin"]


def test_an_interrupted_download_leaves_no_file_and_the_next_one_succeeds(home, file, server):
    server.broken.add("/set.bin")
    with pytest.raises(DataError, match=r"'set' is not on this machine.*failed"):
        fetch("set", [file])
    assert files_in(home.own) == []
    server.broken.clear()
    assert fetch("set", [file])[0].read_bytes() == CONTENT


def test_a_stopped_download_leaves_no_file(home, file, monkeypatch):
    import pooch

    def stop(self, url, output_file, *_):
        with open(output_file, "wb") as half:
            half.write(CONTENT[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch("set", [file])
    assert files_in(home.own) == []


def test_a_download_with_another_md5_is_refused_and_leaves_no_file(home, file, server):
    server.files["/set.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match="what came is not the published file"):
        fetch("set", [file])
    assert files_in(home.own) == []


def test_a_server_that_says_no_is_quoted(home, file, server):
    server.files.clear()
    with pytest.raises(DataError, match=r"set\.bin \(the server answered 404\) failed"):
        fetch("set", [file])


def test_the_second_mirror_is_tried_when_the_first_fails(home, file, server):
    mirrored = RemoteFile(file.path, (f"{server.url}/gone.bin", *file.urls), file.md5)
    assert fetch("set", [mirrored])[0].read_bytes() == CONTENT
    assert server.asked == ["/gone.bin", "/set.bin"]


def test_offline_asks_no_server_writes_nothing_and_says_where_it_looked(home, file, server, monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        fetch("set", [file])
    for words in ("COURSE_OFFLINE", "set/set.bin", str(home.shared), str(home.own), 'load("glyphs") works offline'):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.asked == []
    assert not home.own.exists()


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_can_be_switched_off(home, file, monkeypatch, value):
    monkeypatch.setenv("COURSE_OFFLINE", value)
    assert fetch("set", [file])[0].is_file()


@pytest.mark.parametrize("offline", ["0", "1"])
def test_the_shared_folder_comes_before_the_own_one(home, file, server, monkeypatch, offline):
    monkeypatch.setenv("COURSE_OFFLINE", offline)
    mine = put(home.own, file)
    assert fetch("set", [file]) == [mine]
    shared = put(home.shared, file)
    assert fetch("set", [file]) == [shared]
    assert server.asked == []


def test_a_shared_folder_with_only_some_of_the_files_is_not_used_and_not_written(home, file, server, snapshot):
    server.files["/other.bin"] = b"other"
    other = RemoteFile("set/other.bin", (f"{server.url}/other.bin",), hashlib.md5(b"other").hexdigest())
    put(home.shared, file)
    before = snapshot(home.shared)
    assert find([file, other]) is None
    assert fetch("set", [file, other]) == [home.own / "set/set.bin", home.own / "set/other.bin"]
    assert snapshot(home.shared) == before


def test_only_what_is_missing_is_downloaded(home, file, server):
    server.files["/other.bin"] = b"other"
    other = RemoteFile("set/other.bin", (f"{server.url}/other.bin",), hashlib.md5(b"other").hexdigest())
    put(home.own, file)
    fetch("set", [file, other])
    assert server.asked == ["/other.bin"]


@pytest.mark.parametrize("place", ["shared", "own"])
def test_a_damaged_file_is_refused_by_name_and_neither_replaced_nor_passed_over(home, file, server, place):
    path = put(getattr(home, place), file, CONTENT[:-1])
    with pytest.raises(DataError, match=r"is damaged.*delete it or put a good copy") as caught:
        fetch("set", [file])
    assert str(path) in str(caught.value)
    assert path.read_bytes() == CONTENT[:-1]
    assert server.asked == []


def test_a_file_whose_reader_checks_it_is_accepted_as_found_but_not_as_downloaded(home, file, server):
    lenient = RemoteFile(file.path, file.urls, "0" * 32, strict=False)
    with pytest.raises(DataError, match="not the published file"):
        fetch("set", [lenient])
    path = put(home.shared, lenient)
    assert fetch("set", [lenient]) == [path]


def test_a_file_without_a_download_is_missed_with_a_clear_sentence(home):
    with pytest.raises(DataError, match="it has no download"):
        fetch("set", [RemoteFile("set/set.bin")])


def test_a_course_data_that_is_not_a_folder_is_said_so(home, file, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(home.shared / "typo"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(DataError, match=r"typo, which is not a folder"):
        fetch("set", [file])


def test_without_course_data_the_error_says_that_it_is_not_set(home, file, monkeypatch):
    monkeypatch.delenv("COURSE_DATA")
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(DataError, match=r"\$COURSE_DATA \(not set\)"):
        fetch("set", [file])


def test_downloads_go_to_data_in_a_checkout_and_to_the_users_cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "__file__", str(tmp_path / "course_utils" / "data" / "store.py"))
    assert store.own_folder().name == "course_utils"
    assert tmp_path not in store.own_folder().parents
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data").mkdir()
    assert store.own_folder() == tmp_path / "data"
