import os

from clipdrift_monitor.evidence.expiry import remove_old_packs

DAY = 86_400


def write(folder, name, day):
    path = folder / name
    path.write_text("x")
    os.utime(path, (day * DAY, day * DAY))


def test_packs_go_by_their_age_beside_the_newest_one(tmp_path):
    for name, day in (("old.html", 10), ("old.json", 10), ("young.html", 95), ("newest.log", 110), ("notes.txt", 1)):
        write(tmp_path, name, day)
    assert remove_old_packs(tmp_path, 90) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest.log", "notes.txt", "young.html"]


def test_nothing_goes_where_all_are_of_one_time_however_long_ago(tmp_path):
    write(tmp_path, "a.html", 1)
    assert remove_old_packs(tmp_path, 1) == 0


def test_zero_days_and_a_folder_that_is_not_there_remove_nothing(tmp_path):
    write(tmp_path, "a.html", 1)
    write(tmp_path, "b.html", 900)
    assert remove_old_packs(tmp_path, 0) == remove_old_packs(tmp_path / "none", 5) == 0
