"""Whose turn it is, against a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from botd.core.rota import Rota

ids = st.sampled_from("abcde")
times = st.integers(0, 20).map(float)
steps = st.lists(st.tuples(st.sampled_from(["put", "sooner", "drop", "take"]), ids, times), max_size=60)


@given(steps)
def test_like_a_dictionary_that_is_looked_through(walk):
    rota, plain = Rota(), {}
    for what, id, at in walk:
        if what == "put" or (what == "sooner" and at < plain.get(id, 99.0)):
            plain[id] = at
        if what == "drop":
            plain.pop(id, None)
        if what != "take":
            getattr(rota, what)(*((id,) if what == "drop" else (id, at)))
            continue
        assert rota.due(at) == any(due <= at for due in plain.values())
        expected = sorted((due, one) for one, due in plain.items() if due <= at)[:2]
        assert rota.take(at, 2) == [one for _, one in expected]
        for _, one in expected:
            del plain[one]


def test_saying_it_often_is_not_remembered_often():
    rota = Rota()
    for at in range(10_000):
        rota.put("a", float(-at))
    assert len(rota._heap) < 100
    assert rota.take(-9999.0, 5) == ["a"]
    assert not rota.due(0.0)
