"""The store in memory does what the store on disk does."""

from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.checkpointing.memory import MemoryStore
from epochal.checkpointing.retention import Keep
from epochal.checkpointing.store import CheckpointStore

saves = st.fixed_dictionaries(
    {
        "epoch": st.integers(0, 3),
        "step": st.integers(0, 3),
        "batch": st.none() | st.integers(0, 1),
        "asked_by": st.sets(st.sampled_from(["a", "b"])).map(sorted),
        "pinned": st.booleans(),
        "resume_point": st.booleans(),
        "fitness": st.none() | st.floats(),
    }
)


@settings(max_examples=25, deadline=None)
@given(history=st.lists(saves, max_size=6), last=st.integers(0, 2), best=st.integers(0, 2))
def test_both_stores_keep_the_same(history, last, best, tmp_path_factory):
    stores = [MemoryStore(), CheckpointStore(tmp_path_factory.mktemp("store"))]
    for number, one in enumerate(history):
        for store in stores:
            store.keep("a", Keep(last=last, best=best))
            if number == 1 and store.checkpoints:  # the rule may have let the first go at once
                store.protect(store.checkpoints[0].manifest.name)
            store.save({"run": {"number": number}}, **one)
        memory, disk = stores
        assert [x.load("run") for x in memory.checkpoints] == [x.load("run") for x in disk.checkpoints]
        assert [x.manifest.name for x in memory.checkpoints] == [x.manifest.name for x in disk.checkpoints]
        for question in (
            lambda s: s.checkpoints.best(),
            lambda s: s.checkpoints.last,
            lambda s: s.newest_resume_point(),
        ):
            a, b = question(memory), question(disk)
            assert (a and a.load("run")) == (b and b.load("run"))


def test_what_is_saved_is_a_copy():
    store, state = MemoryStore(), {"best": [1]}
    saved = store.save({"run": state}, epoch=0, step=0)
    state["best"].append(2)
    saved.load("run")["best"].append(3)
    assert saved.load("run") == {"best": [1]}
