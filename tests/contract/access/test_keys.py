"""API keys: who gets in, how far, and what is never told."""

import datetime
import hashlib
import io
import logging
import os
import tomllib

import pytest

from clipdrift_contract.access.keys import (
    ApiKeys,
    ForbiddenError,
    KeyEntry,
    NewKey,
    UnauthorizedError,
    credentials,
    make_key,
    show_once,
)
from clipdrift_contract.clock import MS_PER_DAY, ManualClock
from clipdrift_contract.errors import ConfigError

NOON_OF_2027 = 1_798_761_600_000 + MS_PER_DAY // 2  # 2027-01-01 12:00 UTC
SECRET = "clipdrift_a-key-of-the-environment"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON_OF_2027)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.toml"


def bearer(made: NewKey) -> bytes:
    return b"Bearer " + made.secret.encode()


def write(file, *made: NewKey, salt: str = "") -> None:
    file.write_text(f'salt = "{salt}"\n' * bool(salt) + "".join(one.lines() for one in made))


def rewrite(file, clock, *made: NewKey) -> None:
    """A new file in the place of the old one, as editors and stores do it; the second in which it is not seen is over."""
    beside = file.with_suffix(".new")
    write(beside, *made)
    beside.replace(file)
    clock.advance_ms(1_000)


def fault(keys: ApiKeys, *asked) -> str:
    with pytest.raises((UnauthorizedError, ForbiddenError)) as refused:
        keys.check(*asked)
    return "unauthorized" if isinstance(refused.value, UnauthorizedError) else "forbidden"


def test_without_keys_all_but_admin_is_open(clock):
    keys = ApiKeys(clock)
    assert keys.is_open
    for scope in ("infer", "feedback", "read"):
        assert keys.check(None, scope, "churn") == ""
    assert fault(keys, None, "admin") == "unauthorized"
    assert fault(keys, b"Bearer x", "admin") == "unauthorized"


def test_a_key_opens_what_its_scopes_name_and_nothing_else(file, clock):
    made = make_key("billing", ["infer", "read"])
    write(file, made)
    keys = ApiKeys(clock, file)
    assert keys.check(bearer(made), "infer", "churn") == "billing"
    assert keys.check(bearer(made), "read") == "billing"
    assert fault(keys, bearer(made), "feedback", "churn") == "forbidden"
    assert fault(keys, bearer(made), "admin") == "forbidden"


@pytest.mark.parametrize("change", ["", "x", "upper", "half", "scheme", "none", "long", "bytes"])
def test_what_is_not_the_key_is_unauthorized(file, clock, change):
    made = make_key("billing", ["infer"])
    write(file, made)
    secret = made.secret.encode()
    given = {
        "": b"Bearer ", "x": b"Bearer " + secret + b"x", "upper": b"Bearer " + secret.upper(), "half": b"Bearer " + secret[:-1],
        "scheme": b"Basic " + secret, "none": None, "long": b"Bearer " + secret * 100, "bytes": b"Bearer \xff\x00" + secret,
    }[change]  # fmt: skip
    assert fault(ApiKeys(clock, file), given, "infer", "churn") == "unauthorized"


def test_the_digest_of_a_key_is_not_the_key(file, clock):
    made = make_key("billing", ["infer"])
    write(file, made)
    assert fault(ApiKeys(clock, file), b"Bearer " + made.entry.sha256.encode(), "infer") == "unauthorized"


def test_two_keys_whose_digests_begin_alike_are_told_apart(file, clock):
    made = make_key("billing", ["infer"])
    half = made.entry.sha256[:32]
    file.write_text(f'[[key]]\nname = "a"\nsha256 = "{half}{"0" * 32}"\nscopes = ["infer"]\n')
    assert fault(ApiKeys(clock, file), bearer(made), "infer", "churn") == "unauthorized"


def test_a_key_bound_to_models_is_good_for_those_only(file, clock):
    made = make_key("billing", ["infer", "read", "feedback"], models=["churn-*", "risk"])
    write(file, made)
    keys = ApiKeys(clock, file)
    for _ in range(2):  # the second time from what it remembers
        assert keys.check(bearer(made), "infer", "churn-eu") == "billing"
        assert keys.check(bearer(made), "infer", "risk") == "billing"
        assert fault(keys, bearer(made), "infer", "risk2") == "forbidden"
        assert fault(keys, bearer(made), "infer", "xchurn-eu") == "forbidden"
    assert keys.check(bearer(made), "read") == "billing"  # the server's own metadata
    assert fault(keys, bearer(made), "feedback") == "forbidden"


def test_a_key_is_good_on_its_last_day_and_not_on_the_next(file, clock):
    made = make_key("guest", ["infer"], expires=datetime.date(2027, 1, 1))
    write(file, made)
    keys = ApiKeys(clock, file)
    assert keys.check(bearer(made), "infer") == "guest"
    clock.advance_ms(MS_PER_DAY // 2 - 1)
    assert keys.check(bearer(made), "infer") == "guest"
    clock.advance_ms(1_000)
    assert fault(keys, bearer(made), "infer") == "unauthorized"


def test_when_the_last_key_has_expired_the_door_stays_shut(file, clock):
    write(file, make_key("guest", ["infer"], expires=datetime.date(2020, 1, 1)))
    keys = ApiKeys(clock, file)
    assert not keys.is_open
    assert fault(keys, None, "read") == "unauthorized"


def test_a_salted_file_takes_keys_made_with_its_salt(file, clock):
    made, plain = make_key("a", ["infer"], salt="sea"), make_key("b", ["infer"])
    write(file, made, plain, salt="sea")
    keys = ApiKeys(clock, file)
    assert made.entry.sha256 == hashlib.sha256(b"sea" + made.secret.encode()).hexdigest()
    assert keys.check(bearer(made), "infer") == "a"
    assert fault(keys, bearer(plain), "infer") == "unauthorized"


def test_a_secret_of_the_environment_is_a_key_for_all_but_admin_beside_the_files(file, clock):
    made = make_key("billing", ["admin"])
    write(file, made)
    keys = ApiKeys(clock, file, secret=SECRET)
    for scope in ("infer", "feedback", "read"):
        assert keys.check(b"Bearer " + SECRET.encode(), scope, "churn") == "environment"
    assert fault(keys, b"Bearer " + SECRET.encode(), "admin") == "forbidden"
    assert keys.check(bearer(made), "admin") == "billing"


def test_a_rewritten_file_counts_within_a_second(file, clock):
    old, new = make_key("old", ["infer"]), make_key("new", ["infer"])
    write(file, old)
    keys = ApiKeys(clock, file)
    rewrite(file, clock, new)
    assert keys.check(bearer(new), "infer") == "new"
    assert fault(keys, bearer(old), "infer") == "unauthorized"


def test_a_file_written_twice_within_one_tick_is_still_seen(file):
    old, new = make_key("one", ["infer"]), make_key("two", ["infer"])
    write(file, old)
    times = file.stat()
    clock = ManualClock(times.st_mtime_ns // 1_000_000)
    keys = ApiKeys(clock, file)
    write(file, new)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # the same inode, size and time
    clock.advance_ms(1_000)
    assert keys.check(bearer(new), "infer") == "two"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[[key]\n", b'[[key]]\nname = "a"\n', b"key = []\n", None])
def test_a_broken_new_file_keeps_the_old_keys_and_says_so_once(file, clock, caplog, content):
    made = make_key("billing", ["infer"])
    write(file, made)
    keys = ApiKeys(clock, file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for _ in range(5):
        clock.advance_ms(1_000)
        assert keys.check(bearer(made), "infer") == "billing"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(file) in caplog.text
    assert keys.num_refused_files == 1
    rewrite(file, clock, made, make_key("more", ["infer"]))
    clock.advance_ms(1_000)
    assert keys.check(bearer(made), "infer") == "billing"
    assert repr(keys) == "ApiKeys(2 keys)"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "no toml",
        'salt = "x"',
        '[[key]]\nname = "a b"\nsha256 = "{digest}"\nscopes = ["infer"]',
        '[[key]]\nname = "a"\nsha256 = "{secret}"\nscopes = ["infer"]',
        '[[key]]\nname = "a"\nsha256 = "{digest}"\nscopes = []',
        '[[key]]\nname = "a"\nsha256 = "{digest}"\nscopes = ["{secret}"]',
        '[[key]]\nname = "a"\nsha256 = "{digest}"\nscopes = ["infer"]\n{secret} = 1',
        '[[key]]\nname = "a"\nsha256 = "{digest}"\nscopes = ["infer"]\nmodels = ["{secret} x"]',
        '[[key]]\nname = "a"\nsha256 = "{digest}"\nscopes = ["infer"]\nexpires = "{secret}"',
        '[[key]]\nname = "a"\nsha256 = {secret}',
        '[[key]]\nname = "a"\nsha256 = "{digest}"\nscopes = ["infer"]\n' * 2,
    ],
)
def test_a_wrong_file_ends_the_start_and_its_values_are_not_told(file, clock, content):
    secret = "clipdrift_put-here-by-mistake"
    if content is not None:
        digest = hashlib.sha256(b"x").hexdigest()
        file.write_text(content.replace("{secret}", secret).replace("{digest}", digest))
    with pytest.raises(ConfigError) as refused:
        ApiKeys(clock, file)
    assert str(file) in str(refused.value)
    assert secret not in str(refused.value)
    assert "put-here" not in repr(refused.value.__cause__)


def test_a_made_key_is_random_and_its_entry_reads_back(file):
    made = make_key("billing", ["infer", "admin"], ["churn-*"], datetime.date(2027, 1, 31))
    assert made.secret != make_key("billing", ["infer"]).secret
    assert len(made.secret) == len("clipdrift_") + 43  # 256 bits in base64
    assert tomllib.loads(made.lines()) == {
        "key": [
            {
                "name": "billing",
                "sha256": hashlib.sha256(made.secret.encode()).hexdigest(),
                "scopes": ["infer", "admin"],
                "models": ["churn-*"],
                "expires": datetime.date(2027, 1, 31),
            }
        ]
    }


def test_a_key_is_shown_once_and_its_entry_holds_no_key():
    made, out = make_key("billing", ["infer"]), io.StringIO()
    show_once(made, out)
    assert out.getvalue().count(made.secret) == 1
    assert made.lines() in out.getvalue()
    assert made.secret not in made.lines()


@pytest.mark.parametrize(("name", "scopes", "models"), [("a b", ["infer"], []), ("a", ["all"], []), ("a", ["infer"], ["a/b"])])
def test_a_key_that_the_file_could_not_hold_is_not_made(name, scopes, models):
    with pytest.raises(ValueError, match=r"name|scopes|models"):
        make_key(name, scopes, models)


def test_no_repr_error_or_log_holds_a_key(file, clock, caplog):
    caplog.set_level(logging.DEBUG)
    made = make_key("billing", ["infer"], ["churn"])
    write(file, made)
    keys = ApiKeys(clock, file, secret=SECRET)
    said = [repr(keys), str(keys), repr(made), str(made), repr(vars(keys))]
    for given in (made.secret, SECRET, "clipdrift_not-one"):
        for asked in (("admin", None), ("infer", "risk")):
            try:
                keys.check(b"Bearer " + given.encode(), *asked)
            except (UnauthorizedError, ForbiddenError) as error:
                said += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    file.write_text(f"[[key]]\nsha256 = {made.secret}\n")
    clock.advance_ms(1_000)
    keys.check(bearer(made), "infer", "churn")
    said.append(caplog.text)
    assert caplog.text
    assert len(said) > 15
    for secret in (made.secret, SECRET, "clipdrift_not-one"):
        assert not [text for text in said if secret in text]


def test_an_entry_is_checked_where_it_is_made():
    with pytest.raises(ValueError, match="got 3 characters"):
        KeyEntry(name="a", sha256="abc", scopes=("infer",))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({b"authorization": b"Bearer a"}, b"Bearer a"),
        ({b"x-api-key": b"a"}, b"Bearer a"),
        ({b"x-api-key": b"a", b"authorization": b"Bearer b"}, b"Bearer b"),
    ],
)
def test_a_key_comes_in_either_header(headers, expected):
    assert credentials(headers) == expected
