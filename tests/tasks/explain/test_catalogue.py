"""The reason catalogue: reading, errors, binding, words in both languages."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.catalogue.binding import bind
from tasks.explain.catalogue.files import (
    _DEEP,
    MAX_BYTES,
    catalogue_digest,
    from_toml,
    house_catalogue,
    read_catalogue,
    to_toml,
)
from tasks.explain.catalogue.model import Pattern, Text
from tasks.explain.catalogue.phrases import phrase_keys
from tasks.explain.catalogue.unmatched import MOST_LINES, warn_unmatched
from tasks.explain.errors import CatalogueError
from tasks.explain.groups import FeatureGroups, read_feature
from tasks.explain.languages import LANGUAGES, duration, fixed, number, percent, window_words
from tasks.explain.reasons import ReasonRanker, rank_reasons
from tasks.explain.tree import Explanation
from tasks.explain.wording import FeatureWords, Wording, describe
from tasks.fraud.derive import NEVER, derived_names, event_names
from tasks.fraud.graph import SIGNALS

ENTITIES = ("customer", "terminal")
WINDOWS = ("1d", "7d", "30d")
HOUSE = (*event_names(), *derived_names("customer", WINDOWS), *derived_names("terminal", WINDOWS),
         *SIGNALS)  # fmt: skip
OWN = ("mcc_risk", "channel", "kind=web", "distance_missing")
GROUPS = FeatureGroups.of((*HOUSE, *OWN), ENTITIES)
CATEGORIES = {"channel": ("shop", "web")}
MINE = """
format = 1
name = "bank"
extends = "house"
[columns.zh]
mcc_risk = "商户类别风险"
[[entry]]
code = "M1"
groups = ["transaction/mcc_risk"]
[entry.customer]
en = "Type of the merchant"
zh = "商户的类别"
[entry.analyst]
en = "risk of the merchant's type is {value}"
zh = "{name}为{value}"
"""


def extended(more: str) -> str:
    return 'format = 1\nname = "bank"\nextends = "house"\n' + more


def entry(code="M1", groups='["transaction/mcc_risk"]', more="", en="Type", zh="类别"):
    return extended(
        f'[[entry]]\ncode = "{code}"\ngroups = {groups}\n{more}\n'
        f'[entry.customer]\nen = "{en}"\nzh = "{zh}"\n'
    )


SAYS = {
    (language, name): FeatureWords(
        read_feature(name, ENTITIES), Wording(categories=CATEGORIES, language=language)
    )
    for language in LANGUAGES
    for name in (*HOUSE, *OWN)
}
EXTREMES = (0.0, -0.0, -1.0, 0.5, 1.0, 1.04, 2.0, 3_599.0, 3_600.0, NEVER, 1e300, -1e300, -1.7e308,
            5e-324, float("nan"), float("inf"), -float("inf"))  # fmt: skip


def check_said(language, name, value):
    text = SAYS[language, name](value)
    assert text.strip() == text != ""
    assert not set("{}") & set(text)
    assert "nan" not in text.split()
    if language == "zh" and name in HOUSE:
        assert not any("a" <= letter <= "z" for letter in text), text


@pytest.mark.parametrize("key", SAYS, ids="-".join)
def test_every_feature_has_words_for_extreme_values(key):
    for value in EXTREMES:
        check_said(*key, value)


@settings(deadline=None)
@given(key=st.sampled_from(sorted(SAYS)), value=st.floats())
def test_every_feature_has_words_for_any_value(key, value):
    check_said(*key, value)


def test_every_phrase_of_the_house_is_said_by_some_value():
    """A phrase that no value reaches would be dead words."""
    values = [float("nan"), -1.0, 0.0, 0.5, 1.0, 2.0, 5.0, 4_000.0, NEVER]
    said = {
        describe(read_feature(n, ENTITIES), v, Wording(categories=CATEGORIES))
        for n in (*HOUSE, *OWN)
        for v in values
    }
    for key, text in house_catalogue().phrases.items():
        words = [w for w in text.en.replace("{", " {").split() if not w.startswith(("{", "}"))]
        plain = [w for w in words if "}" not in w]
        assert any(all(w in line for w in plain) for line in said), key


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("amount", 1234.5, "金额为1,234.50"),
        ("customer.ratio_30d", 4.23, "本笔金额是客户近30天平均金额的4.2倍"),
        ("customer.n_1d", 1.0, "客户近1天内有1笔交易"),
        ("customer.rate_1d_30d", 3.0, "客户近1天的交易频率是其30天平均水平的3.0倍"),
        ("customer.gap", 48.0, "距客户上一笔交易仅48秒"),
        ("customer.gap", 5_400.0, "距客户上一笔交易已有1.5小时"),
        ("terminal.risk_7d", 0.38, "在目前已知结果的7天内，终端的交易有38%为欺诈"),
        ("terminal.risk_7d", 0.004, "在目前已知结果的7天内，终端的交易有0.4%为欺诈"),
        ("customer.gap", 0.3, "距客户上一笔交易仅0.3秒"),
        ("terminal.run_days", 9.0, "终端当前的连续欺诈始于9天前"),
        ("channel", 1.0, "“channel”为“web”"),
        ("channel", 9.0, "“channel”缺失或为新值"),
        ("kind=web", 0.0, "“kind”不是“web”"),
        ("terminal.risk_7d", float("nan"), "终端近7天的欺诈率缺失"),
    ],
)
def test_features_in_chinese(name, value, text):
    style = Wording(categories=CATEGORIES, language="zh")
    assert describe(read_feature(name, ENTITIES), value, style) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("terminal.risk_7d", 0.0, "0 % of"), ("terminal.risk_7d", 0.004, "0.4 % of"),
        ("terminal.risk_7d", 1e-9, "0.0000001 % of"), ("terminal.risk_7d", 0.996, "99.6 % of"),
        ("terminal.risk_7d", 0.99999994, "99.999994 % of"), ("terminal.risk_7d", 1.0, "100 % of"),
        ("terminal.risk_7d", 0.384, "38 % of"), ("terminal.of_max_7d", 0.9999, "is 99.99 % of"),
        ("customer.gap", 0.3, "only 0.3 seconds since"), ("customer.gap", 0.0, "only 0 seconds"),
        ("customer.ratio_30d", 0.004, "is 0.004 x"), ("customer.z_7d", 0.01, "is 0.01 standard"),
        ("customer.mean_7d", 0.004, "is 0.004"), ("customer.mean_7d", -0.0, "is 0.00"),
        ("rate", 0.0012, "rate is 0.0012"), ("rate", -0.0001, "rate is -0.0001"),
        ("rate", -0.0, "rate is 0"), ("rate", 0.12345, "rate is 0.1235"),
    ],
)  # fmt: skip
def test_rounding_never_says_the_opposite(name, value, text):
    """What is said as none, or as all, is none, or all."""
    assert text in describe(read_feature(name, ENTITIES), value)


@given(st.floats(-1e6, 1e6).filter(lambda v: abs(v) > 1e-9))
def test_nothing_but_zero_is_said_as_zero_and_signs_are_kept(value):
    for text in (percent(value), fixed(value, 1), fixed(value, 0), number(value)):
        assert float(text.replace(",", "")) * value > 0
    if 0 < value < 1:
        assert 0 < float(percent(value)) < 100


def test_durations_and_windows_in_chinese():
    assert [duration(s, "zh") for s in (0, 0.3, 59, 60, 7_200, 216_000)] == [
        "0秒", "0.3秒", "59秒", "1分钟", "2小时", "2.5天",
    ]  # fmt: skip
    assert [window_words(w, "zh") for w in ("15min", "1h", "30d", "2w", "odd")] == [
        "15分钟", "1小时", "30天", "2周", "odd",
    ]  # fmt: skip


def test_the_house_has_a_code_and_words_for_all_its_features():
    bound = bind(house_catalogue(), FeatureGroups.of(HOUSE, ENTITIES))
    assert bound.without_entry == bound.unused == ()
    assert bound.unnamed("zh") == ()
    assert len(set(bound.codes)) == len(bound.codes) == len(bound.groups.keys)
    assert {"V-7d-customer", "R-terminal", "L-terminal", "T1", "G"} <= set(bound.codes)
    for language in LANGUAGES:
        texts = [bound.customer(code, language) for code in bound.codes]
        assert len(set(texts)) == len(texts)
    assert bound.customer("V-7d-customer", "zh") == "客户在7天内的交易笔数与金额"


def test_columns_of_the_user_fall_back_until_they_have_an_entry():
    bound = bind(house_catalogue(), GROUPS)
    assert bound.without_entry == (
        "transaction/mcc_risk", "transaction/channel", "transaction/kind", "transaction/distance",
    )  # fmt: skip
    assert bound.unnamed("zh") == ("channel", "distance", "kind", "mcc_risk")
    with pytest.raises(CatalogueError, match=r"no words for customers; add an \[\[entry\]\]"):
        bound.customer("X-mcc_risk", "en")
    with pytest.raises(CatalogueError, match="scores nothing of code 'Q'"):
        bound.customer("Q", "en")
    own = bind(from_toml(MINE), GROUPS)
    assert "transaction/mcc_risk" not in own.without_entry
    assert own.customer("M1", "zh") == "商户的类别"
    assert bind(from_toml(MINE), FeatureGroups.of(HOUSE, ENTITIES)).unused == ("M1",)


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "risk of the merchant's type is 0.25"), ("zh", "“商户类别风险”为0.25")],
)
def test_an_entry_words_its_column(language, text):
    catalogue = from_toml(MINE)
    meaning = read_feature("mcc_risk", ENTITIES)
    analyst = catalogue.entry_of(meaning).analyst
    assert FeatureWords(meaning, Wording(language=language), catalogue, analyst)(0.25) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("channel", 1.0, "paid by web"), ("channel", -1.0, "channel is missing or new"),
     ("channel", float("nan"), "channel is missing"), ("channel=shop", 1.0, "paid by shop"),
     ("channel=shop", 0.0, "channel is not shop"), ("channel_missing", 1.0, "channel is missing"),
     ("customer.gap", 3.0, "paid by 3"), (SIGNALS[0], 3.0, "paid by 3")],
)  # fmt: skip
def test_words_of_an_entry_tell_the_value_where_there_is_one(name, value, text):
    analyst = Text("paid by {value}", "以{value}支付")
    words = FeatureWords(
        read_feature(name, ENTITIES), Wording(categories=CATEGORIES), analyst=analyst
    )
    assert words(value) == text


def test_catalogues_are_written_as_they_are_read():
    for catalogue in (house_catalogue(), from_toml(MINE)):
        text = to_toml(catalogue)
        assert from_toml(text) == catalogue
        assert to_toml(from_toml(text)) == text
        assert catalogue_digest(catalogue) == hashlib.sha256(text.encode()).hexdigest()
    assert catalogue_digest(house_catalogue()) != catalogue_digest(from_toml(MINE))


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}")).map(str.strip)


@settings(deadline=None, max_examples=50)
@given(en=WORDS.filter(bool), zh=WORDS.filter(bool))
def test_any_text_survives_writing_and_reading(en, zh):
    catalogue = from_toml(MINE)
    *others, mine = catalogue.entries
    mine = replace(mine, customer=Text(en, zh))
    changed = replace(catalogue, entries=(*others, mine), columns={"en": {en: zh}, "zh": {zh: en}})
    assert from_toml(to_toml(changed)) == changed


def test_entries_of_a_file_take_the_place_of_those_of_the_house():
    own = from_toml(entry("T1", '["transaction/amount"]', en="Sum", zh="金额大小"))
    assert bind(own, GROUPS).customer("T1", "en") == "Sum"
    taken = from_toml(entry("Q", '["transaction/hour", "transaction/night"]'))
    assert [e.code for e in taken.entries if e.stem in {"T2", "T3"}] == []
    assert "Q" in bind(taken, GROUPS).codes


def test_the_most_exact_pattern_decides():
    text = entry("A", '["customer/activity/*"]') + entry("B", '["*/activity/7d"]').partition(
        'extends = "house"\n')[2]  # fmt: skip
    codes = dict(zip(GROUPS.keys, _codes(from_toml(text)), strict=True))
    assert codes["customer/activity/7d"] == "A"
    assert codes["terminal/activity/7d"] == "B"
    assert codes["terminal/activity/30d"] == "V-30d-terminal"
    assert not Pattern.read("*/labels").matches(read_feature("labels", ENTITIES))


def test_what_a_file_itself_writes_is_told_from_what_it_inherits():
    own = from_toml(
        extended('[columns.zh]\ncard = "卡片"\n[columns.en]\npayer = "sender"\n')
        + entry("T1", '["transaction/amount"]').partition('extends = "house"\n')[2]
    )
    written = own.written()
    assert [e.code for e in written.entries] == ["T1"]
    assert written.columns == {"en": {"payer": "sender"}, "zh": {"card": "卡片"}}
    assert own.columns["zh"]["payer"] == "付款方"
    assert house_catalogue().written().entries == ()
    whole = from_toml(to_toml(own))  # nothing is inherited there
    assert whole.written() == whole


def told(text, caplog, names=HOUSE):
    caplog.clear()
    warn_unmatched(from_toml(text), FeatureGroups.of(names, ENTITIES))
    return [record.getMessage() for record in caplog.records]


def test_groups_that_the_model_does_not_have_are_told_with_the_nearest(caplog):
    own = entry("M1", '["transaction/amuont", "transaction/hour"]')
    (line,) = told(own, caplog)
    assert line == (
        "catalogue 'bank', entry 'M1': the model has no group 'transaction/amuont'; mend the name "
        "or take it out: the nearest is 'transaction/amount'"
    )
    prohibition = '[[entry]]\ncode = "P"\ngroups = ["transaction/nihgt"]\nprohibited = true\n'
    (line,) = told(extended(prohibition), caplog)
    assert "entry 'P' prohibits 'transaction/nihgt', which the model does not have" in line
    assert line.endswith("unless the name is misspelt: the nearest is 'transaction/night'")
    assert "none is spelled like it" in told(entry(groups='["zz/labels"]'), caplog, ["a"])[0]


def test_what_fits_and_what_the_house_brings_is_not_told(caplog):
    assert told(extended(""), caplog, ["amount"]) == []
    assert told(entry("A", '["*/activity/7d", "transaction/hour"]'), caplog) == []
    whole = to_toml(from_toml(entry("A", '["transaction/amount"]')))
    assert told(whole, caplog, ["amount"]) == []  # as training gets it from its first step


def test_a_catalogue_of_another_model_does_not_fill_the_log(caplog):
    groups = ", ".join(f'"transaction/c{n}"' for n in range(MOST_LINES + 5))
    lines = told(entry("A", f"[{groups}]"), caplog)
    assert len(lines) == MOST_LINES + 1
    assert "lacks 5 more of its groups" in lines[-1]


def _codes(catalogue):
    bound = bind(catalogue, GROUPS)
    of_key = {k: c for c, key in zip(bound.codes, bound.groups.keys, strict=True)
              for k in key.split(" + ")}  # fmt: skip
    return [of_key[key] for key in GROUPS.keys]


def _explained(row):
    per_model = np.array(row)[:, None, :]
    k = len(per_model)
    names = tuple(m.name for m in GROUPS.meanings)
    return Explanation(names, per_model, np.zeros(k), np.zeros(1), 0.0, "path")


def test_groups_of_one_code_are_one_reason_whose_values_and_error_are_of_the_sum():
    catalogue = from_toml(entry("V", '["*/activity/*"]', en="Activity", zh="交易活动"))
    names = [m.name for m in GROUPS.meanings]
    rows = np.zeros((3, len(names)))
    rows[:, names.index("customer.n_7d")] = [0.9, 1.0, 1.3]
    rows[:, names.index("terminal.n_1d")] = [0.7, 0.6, 0.2]
    rows[:, names.index("amount")] = 0.3
    x = np.full((1, len(names)), 2.0)
    found = rank_reasons(_explained(rows), x, GROUPS, catalogue=catalogue)[0]
    assert [(r.code, r.tie) for r in found] == [("V", False), ("T1", False)]
    total = [1.6, 1.6, 1.5]
    assert found[0].contribution == pytest.approx(np.mean(total))
    assert found[0].error == pytest.approx(np.std(total, ddof=1) / np.sqrt(3))
    assert set(found[0].group.split(" + ")) == {k for k in GROUPS.keys if "/activity/" in k
                                                and not k.endswith("/last")}  # fmt: skip
    apart = rank_reasons(_explained(rows), x, GROUPS)[0]
    assert [r.code for r in apart] == ["V-7d-customer", "V-1d-terminal", "T1"]


def test_a_tie_at_the_cut_names_its_rival_and_can_be_listed():
    names = [m.name for m in GROUPS.meanings]
    row = np.zeros((2, len(names)))
    for name, value in (("amount", 3.0), ("hour", 2.5), ("night", 2.0), ("mcc_risk", 1.0),
                        ("weekend", 1.0), ("channel", 0.4)):  # fmt: skip
        row[:, names.index(name)] = value
    row[0, names.index("weekend")] += 0.1
    row[1, names.index("weekend")] -= 0.2
    x = np.ones((1, len(names)))
    four = rank_reasons(_explained(row), x, GROUPS)[0]
    assert [r.code for r in four] == ["T1", "T2", "T3", "X-mcc_risk"]
    assert (four[-1].tie, four[-1].rival) == (True, "T4")
    assert [r.rival for r in four[:3]] == [""] * 3
    five = rank_reasons(_explained(row), x, GROUPS, list_ties=True)[0]
    assert [r.code for r in five] == ["T1", "T2", "T3", "X-mcc_risk", "T4"]
    assert not five[-1].tie


@pytest.mark.parametrize("limit", [0, 5])
def test_more_than_four_reasons_are_refused(limit):
    with pytest.raises(ValueError, match="ask for 1 to 4 reasons"):
        ReasonRanker(GROUPS, limit=limit)
    with pytest.raises(CatalogueError, match="give 1 to 4"):
        from_toml(extended(f"max_reasons = {limit}\n"))


def test_a_catalogue_may_ask_for_fewer_reasons():
    names = [m.name for m in GROUPS.meanings]
    two = from_toml(extended("max_reasons = 2\n"))
    row = np.zeros((1, len(names)))
    row[0, :4] = (4.0, 3.0, 2.0, 1.0)
    found = rank_reasons(_explained(row), np.ones((1, len(names))), GROUPS, catalogue=two)[0]
    assert len(found) == 2


def test_what_the_law_forbids_is_refused_where_the_model_scores_it():
    text = extended('[[entry]]\ncode = "P"\ngroups = ["transaction/channel"]\nprohibited = true\n')
    catalogue = from_toml(text)
    assert from_toml(to_toml(catalogue)) == catalogue
    with pytest.raises(CatalogueError, match=r"scores channel .*which entry 'P' prohibits; train"):
        bind(catalogue, GROUPS)
    assert bind(catalogue, FeatureGroups.of(HOUSE, ENTITIES)).unused == ("P",)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "write format = 1"),
        ("format = 2\n", "write format = 1"),
        ("format = true\n", "write format = 1"),
        ("format = 1\n= 3", r"no TOML: .*line 2"),
        ("x = 1", "has no 'x'; known: format"),
        ('format = 1\nname = "a"\n', r"\[phrase.name.event\] is missing"),
        ('format = 1\nname = "a"\nextends = "b"\n', 'write extends = "house"'),
        ("format = 1\nname = 3\nextends = 'house'\n", "name must be a text in quotes, got 3"),
        ("format = 1\nname = ' '\nextends = 'house'\n", "name is empty"),
        (extended("max_reasons = 2.0\n"), "must be a whole number"),
        (extended('fallback = "x"\n'), "code 'x' must be a capital letter"),
        (extended('fallback = "X"\n'), "must end in -{column}"),
        (extended('fallback = "G-{column}"\n'), "code 'G' is that of the fallback"),
        (extended("entry = 3\n"), "doubled brackets"),
        (extended("entry = [3]\n"), r"\[\[entry\]\] 1 must be a table"),
        (extended("[[entry]]\nword = 3\n"), r"\[\[entry\]\] 1 has no 'word'"),
        (extended('[[entry]]\ncode = "M"\n'), r"\[\[entry\]\] 1 \(M\): groups must be a list"),
        (entry(groups="[]"), r"\[\[entry\]\] 1 \(M1\): no groups"),
        (entry(groups='["payer/mood"]'), "unknown group 'payer/mood'; a group is"),
        (entry(groups='["payer/activity/soon"]'), "unknown group"),
        (entry("m1"), "must be a capital letter"),
        (entry("M-{entity}"), "its groups have no {entity}; they have column"),
        (entry("X"), "code 'X' is that of the fallback; choose another"),
        (entry("M1") + entry("M1", '["transaction/b"]').partition('house"\n')[2],
         r"\[\[entry\]\] 2 \(M1\): code 'M1' is that of \[\[entry\]\] 1"),
        (entry("M1") + entry("M2").partition("house\"\n")[2], "belongs to M1 already"),
        (entry(more='prohibited = "yes"'), "must be true or false"),
        (entry(en=" "), r"customer.en is empty"),
        (entry(en="costs {value}"), r"customer.en: no field {value} here; fields: column"),
        (entry(en="the {who}"), "no field {who} here"),
        (entry(en="a {"), "write a brace of the text twice"),
        (entry(en="a {column.x}"), "no field {column.x}"),
        (entry(en="a {column!r:>9}"), "no field {column!r:>9}"),
        (extended('[[entry]]\ncode = "M1"\ngroups = ["transaction/a"]\n'), "no customer text"),
        (extended('[[entry]]\ncode = "M1"\ngroups = ["transaction/a"]\n[entry.customer]\n'
                  'en = "a"\n'), r'\(M1\): customer lacks zh; write zh = "..."'),
        (entry() + '[entry.analyst]\nen = "{valu}"\nzh = "a"\n', "analyst.en: no field {valu}"),
        (extended('[phrase.gap.long]\nen = "a"\nzh = "b"\n'), "known: gap.never, gap.short"),
        (extended('[phrase.oops.x]\nen = "a"\nzh = "b"\n'), "known: amount, before"),
        (extended('[phrase.gap.never]\nen = "{who} {x}"\nzh = "b"\n'), "gap.never.en: no field"),
        (extended('[phrase]\ngap = "x"\n'), r"\[phrase.gap\] must be a table"),
        (extended('[columns.de]\na = "b"\n'), r"\[columns\] has no 'de'; known: en, zh"),
        (extended('[columns.zh]\na = ""\n'), "columns.zh.a is empty"),
        (extended('[letter.hello]\nen = "a"\nzh = "b"\n'), "no part .letter.hello"),
        (extended('[letter.notice]\nen = "a"\nzh = "b"\n'), "must say {regulator} in every"),
    ],
)  # fmt: skip
def test_catalogues_that_cannot_be_used_say_why(text, match):
    with pytest.raises(CatalogueError, match=match):
        from_toml(text)


def test_files_that_cannot_be_read_say_why(tmp_path: Path):
    with pytest.raises(CatalogueError, match="cannot be read: No such file"):
        read_catalogue(tmp_path / "none.toml")
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(CatalogueError, match="larger than 256,000 bytes"):
        read_catalogue(big)
    big.write_bytes(b"name = '\xff'")
    with pytest.raises(CatalogueError, match="no UTF-8"):
        read_catalogue(big)
    with pytest.raises(CatalogueError, match="no TOML"):
        from_toml("a = " + "[" * 50_000)
    with pytest.raises(CatalogueError, match=r"no UTF-8: .*surrogates"):
        from_toml(extended('[columns.zh]\n"a\udc80" = "b"\n'))
    big.write_text(MINE, encoding="utf-8")
    assert read_catalogue(big) == from_toml(MINE)
    big.write_text(MINE, encoding="utf-8-sig")  # as some editors save UTF-8
    assert read_catalogue(big) == from_toml(MINE)


@pytest.mark.parametrize("key", ["max_reasons", "name", "format"])
@pytest.mark.parametrize("number", ["9" * 5_001, "0x" + "f" * 5_000])
def test_numbers_that_python_does_not_read_or_write_are_told(key, number):
    text = "\n".join(line for line in extended("").splitlines() if not line.startswith(key))
    with pytest.raises(CatalogueError, match="x holds a number"):
        from_toml(f"{key} = {number}\n{text}", source="x")


DEEP = {
    "plain": "a." * 20_000 + "a = 1",
    "quoted": '"a\\"". ' * 20_000 + "a = 1",
    "literal": "[" + "'a' .\t" * 20_000 + "a]",
    "inline": "x = {" + "a." * 20_000 + "a = 1}",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_keys_of_many_parts_are_refused_before_they_are_parsed(text):
    began = time.process_time()
    with pytest.raises(CatalogueError, match="line 4: more than 16 parts in a dotted key"):
        from_toml(extended(text))
    assert time.process_time() - began < 1  # the parser takes ten


@pytest.mark.parametrize("piece", ["a", " ", '"', "'", '\\"', '"\\"', "a ", "a.", "a. ", '"". '])
def test_the_search_for_such_keys_takes_no_longer_than_the_file_does(piece):
    began = time.process_time()
    _DEEP.search(piece * (MAX_BYTES // len(piece)))
    assert time.process_time() - began < 1


def test_a_text_may_have_as_many_dots_as_it_likes():
    text = "See www.a.b.example. " * 50 + "." * 100
    assert from_toml(entry(en=text)).entries[-1].customer.en == text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (entry("V", '["*/activity/*"]', en="of the {who}"), "makes .* one reason, but its"),
        (entry("R", '["*/activity/*", "*/activity/last"]', en="in {window}"),
         "tells the {window} of 'customer/activity/last', which has none"),
    ],
)  # fmt: skip
def test_words_that_would_not_be_true_of_a_group_are_refused(text, match):
    with pytest.raises(CatalogueError, match=match):
        bind(from_toml(text), GROUPS)


def test_the_phrases_of_the_house_are_those_the_formatter_asks_for():
    assert set(house_catalogue().phrases) == set(phrase_keys())
