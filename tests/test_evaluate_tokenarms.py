"""Several folders of token scores told as one: one cut for all, and each arm a row of its own."""

import pytest

from curate.errors import CurateError
from curate.evaluate.tokenarms import arm_names
from curate.evaluate.tokenview import report
from tests.token_scores import both, flat, random_samples, sample, say, write

RANDOM = {"draws": 20}


def arm(folder, tuned, base, **record):
    """A folder, and beside it the one of its base scores, all of the same base model."""
    return write(folder, tuned, **record), write(
        folder.with_name(f"{folder.name}-0"), base, model="m"
    )


def ramp(teacher, entropies, **scores):
    """A sample of such entropies under the base, and as it is then: NLL a hundredth of them."""
    entropy = [float(each) for each in entropies]
    tuned = sample(teacher, [each / 100 for each in entropy], **scores)
    return [tuned], [sample(teacher, [1.0] * len(entropy), entropy=entropy, **scores)]


def test_one_cut_for_both_arms_worked_by_hand(tmp_path):
    """Of 0 to 99 arm-b has 85 and up, so most of the hardest; by cuts of its own it has 20 %."""
    ours, theirs = (
        arm(tmp_path / "arm-a", *ramp("convergent", range(85))),
        arm(tmp_path / "arm-b", *ramp("branching", range(85, 100))),
    )
    view = report(*ours, beside=[theirs])
    (section,) = view.sections
    assert section.cuts == {"5": 94.0, "10": 89.0, "20": 79.0}
    assert (section.model, section.base) == ("arm-a (arm-a), arm-b (arm-b)", "m")
    b, a = section.teachers
    assert (a.teacher, b.teacher) == ("convergent (arm-a)", "branching (arm-b)")
    assert (a.tokens, b.tokens, a.samples, b.samples) == (85, 15, 1, 1)
    assert (a.hardest["10"].share, a.hardest["10"].mean_nll) == (0.0, None)
    assert (a.hardest["20"].share, a.hardest["20"].mean_nll) == (5 / 85, pytest.approx(0.82))
    assert (b.hardest["5"].share, b.hardest["5"].mean_nll) == (5 / 15, pytest.approx(0.97))
    assert (b.hardest["10"].share, b.hardest["20"].share) == (10 / 15, 1.0)
    (gap,) = section.gaps
    assert (gap.a, gap.b) == ("branching (arm-b)", "convergent (arm-a)")
    assert gap.gap.value == pytest.approx(0.92 - 0.42)
    assert any(line.startswith("branching (arm-b) - convergent (arm-a)  ") for line in view.lines())
    (alone,) = report(*theirs).sections
    assert alone.cuts["20"] == 96.0 and alone.teachers[0].hardest["20"].share == 3 / 15
    assert [each.teacher for each in alone.teachers] == ["branching"]


@pytest.mark.parametrize("teachers", ["AB", "ABCDE"])
def test_parts_of_pooled_arms_add_up_and_their_order_plays_no_part(tmp_path, teachers):
    arms = [
        arm(tmp_path / name, *random_samples(seed, teachers, 40)) for seed, name in enumerate("xy")
    ]
    (section,) = report(*arms[0], beside=arms[1:], draws=50).sections
    assert len(section.teachers) == 2 * len(teachers)
    for gap in section.gaps:
        for parts in gap.splits.values():
            total = parts.composition.value + parts.within.value
            assert abs(total - gap.gap.value) < 1e-9
    (turned,) = report(*arms[1], beside=arms[:1], draws=50).sections
    assert turned.cuts == section.cuts
    assert flat(turned) == pytest.approx(flat(section), rel=1e-9, abs=1e-12)


def test_folders_of_one_model_are_pooled_as_if_they_were_one(tmp_path):
    """A teacher is then one row, wherever its samples stand."""
    whole = random_samples(5, "AB", 60)
    (one,) = both(tmp_path / "one", *whole, **RANDOM).sections
    parts = [
        arm(tmp_path / str(at), whole[0][place], whole[1][place], model="tuned")
        for at, place in enumerate([slice(25), slice(25, 40), slice(40, 60)])
    ]
    (pooled,) = report(*parts[0], beside=parts[1:], **RANDOM).sections
    assert [each.teacher for each in pooled.teachers] == ["A", "B"]
    assert (pooled.model, pooled.cuts) == ("tuned", one.cuts)
    assert flat(pooled) == pytest.approx(flat(one), rel=1e-9, abs=1e-12)


def test_without_base_scores_arms_are_told_without_cuts(tmp_path):
    folders = [write(tmp_path / name, [sample("A", [nll])]) for name, nll in [("x", 1), ("y", 3)]]
    (section,) = report(folders[0], None, beside=[(folders[1], None)]).sections
    assert [(each.teacher, each.mean_nll) for each in section.teachers] == [
        ("A (x)", 1.0),
        ("A (y)", 3.0),
    ]
    assert (section.cuts, section.gaps[0].splits, section.gaps[0].gap.value) == ({}, {}, -2.0)


def with_probe(place, own, probe, **record):
    """An arm that was asked of a probe too."""
    ours = arm(place, *own, **record)
    for folder, samples in zip(ours, probe, strict=True):
        model = "m" if folder != place else record.get("model", place.name)
        write(folder / "probe", samples, model=model)
    return ours


def test_the_probe_has_both_models_on_the_same_tokens(tmp_path):
    tuned, base = random_samples(7, "AB", 30)
    other = [{**each, "nll": [nll + 1 for nll in each["nll"]]} for each in tuned]
    ours = with_probe(tmp_path / "x", ramp("A", range(9)), (tuned, base))
    theirs = with_probe(tmp_path / "y", ramp("B", range(9)), (other, base))
    own, probe = report(*ours, beside=[theirs], draws=100).sections
    assert [each.teacher for each in own.teachers] == ["A (x)", "B (y)"]
    rows = {each.teacher: each for each in probe.teachers}
    assert list(rows) == ["A (x)", "A (y)", "B (x)", "B (y)"]
    assert rows["A (x)"].tokens == rows["A (y)"].tokens > 0
    assert rows["A (x)"].hardest["20"].share == rows["A (y)"].hardest["20"].share > 0
    assert probe.cuts == report(*ours).sections[1].cuts
    (gap,) = (each for each in probe.gaps if (each.a, each.b) == ("A (x)", "A (y)"))
    assert gap.gap.value == pytest.approx(-1, abs=1e-6)
    assert gap.gap.high - gap.gap.low < 1e-6  # drawn together, so no sample's luck is in it
    for parts in gap.splits.values():
        assert (parts.composition.value, parts.within.value) == (0.0, pytest.approx(-1, abs=1e-6))


def test_a_probe_that_one_model_was_asked_of_twice_counts_once(tmp_path):
    samples = random_samples(8, "AB", 12)
    parts = [
        with_probe(tmp_path / name, ramp(name, range(9)), samples, model="tuned") for name in "xy"
    ]
    bare = arm(tmp_path / "z", *ramp("z", range(9)), model="tuned")
    own, probe = report(*parts[0], beside=[parts[1], bare], **RANDOM).sections
    assert [each.teacher for each in own.teachers] == ["x", "y", "z"]
    (alone,) = report(*parts[0], **RANDOM).sections[1:]
    assert probe == alone


def test_folders_are_named_by_as_much_as_tells_them_apart(tmp_path):
    places = [tmp_path / "a" / "losses", tmp_path / "b" / "losses", tmp_path / "c"]
    assert arm_names([(place, None) for place in places[::2]]) == ["losses", "c"]
    assert arm_names([(place, None) for place in places[:2]]) == ["a/losses", "b/losses"]


PAGE = """\
token view, NLL and entropy in nats; easy: NLL below 0.01

own data: model tuned, base base
teacher  samples  tokens  mean NLL  entropy    easy  easy at base   rank 0  mean rank
(none)         1       1     2.000    0.500   0.0 %         0.0 %  100.0 %      0.000
A              1       4     1.001    0.500  50.0 %        25.0 %   50.0 %      1.000

NLL at quantiles, and its mean by kind of token
teacher   0.05   0.25    0.5   0.75    0.9   0.95   0.99  branch   step  thought  answer  other
(none)   2.000  2.000  2.000  2.000  2.000  2.000  2.000       –  2.000        –       –      –
A        0.000  0.000  0.005  1.000  3.000  3.000  3.000   0.000  0.502        –   3.000      –

hardest tokens: base entropy above a cut pooled over teachers \
(5 %: 3.000, 10 %: 3.000, 20 %: 2.000); \
ties with a cut are out
teacher  5 %: share  mean NLL  10 %: share  mean NLL  20 %: share  mean NLL
(none)        0.0 %         –        0.0 %         –      100.0 %     2.000
A             0.0 %         –        0.0 %         –        0.0 %         –

gap in mean NLL  groups                      gap  composition  within groups
(none) - A       all tokens              +0.9988
                 tenths of base entropy               +0.9988        +0.0000
                 easy at base or not                  +0.4169        +0.5819

[]: 95 % intervals, samples (not problems) drawn 1,000 times, cuts held fixed
"""


def test_one_folder_is_told_as_ever(tmp_path):
    """Letter by letter, as it was before there was anything beside it."""
    tuned = [sample("A", [0, 0.005, 1, 3], kind=[0, 1, 1, 3], rank=[0, 0, 1, 3]), sample(None, [2])]
    base = [sample("A", [0, 1, 1, 3], entropy=[0, 0, 1, 2]), sample(None, [2], entropy=[3])]
    assert "\n".join(both(tmp_path, tuned, base).lines()) + "\n" == PAGE


BASES = "expected the base model's scores too (--base, --beside-base), as for {}, found none"


def lacking_base(x, y):
    return (x, [(y[0], None)]), f"{y[0]}: {BASES.format(x[0])}"


def base_beside_only(x, y):
    return ((x[0], None), [y]), f"{x[0]}: {BASES.format(y[0])}"


def twice(x, y):
    return (x, [y, x]), f"{x[0]}: expected a folder once, found it twice"


def of_two_bases(x, y):
    say(y[1], model="n", settings={"model": {"sha256": "n"}, "data": "y"})
    told = f"as {x[1]} (m), found another (n)"
    return (x, [y]), f"{y[1]}: expected scores of one base model, {told}"


def the_same_scored_twice(x, y):
    for folder in (x[0], y[0]):
        say(folder, settings={"model": {"sha256": "1"}, "data": "2"})
    told = f"other data or of another model than {x[0]}, found the same of both"
    return (x, [y]), f"{y[0]}: expected scores of {told}"


def unfinished(x, y):
    say(y[0], state="running")
    told = "found a scoring that is running (the same command goes on with it)"
    return (x, [y]), f"{y[0]}: expected scores that are whole, {told}"


def one_probe(x, y):
    write(x[0] / "probe", [sample("A", [1.0])])
    write(x[1] / "probe", [sample("A", [1.0])], model="m")
    told = f"expected scores of the probe too, as {x[0] / 'probe'}, found none"
    return (x, [y]), f"{y[0]}: {told}"


def two_probes(x, y):
    for token, (tuned, base) in enumerate((x, y)):
        write(tuned / "probe", [sample("A", [1.0], token=[token])], model=tuned.name)
        write(base / "probe", [sample("A", [1.0], token=[token])], model="m")
    first, other = x[0] / "probe", y[0] / "probe"
    return (x, [y]), f"{other}: row 0: expected the tokens of {first}, found token 1 for 0 at 0"


CASES = [
    lacking_base,
    base_beside_only,
    twice,
    of_two_bases,
    the_same_scored_twice,
    unfinished,
    one_probe,
    two_probes,
]


@pytest.mark.parametrize("case", CASES)
def test_folders_that_cannot_be_told_as_one(tmp_path, case):
    x, y = (arm(tmp_path / name, *ramp(name, range(9))) for name in "xy")
    report(*x, beside=[y])
    (first, beside), line = case(x, y)
    with pytest.raises(CurateError) as error:
        report(*first, beside=beside)
    assert str(error.value) == line
