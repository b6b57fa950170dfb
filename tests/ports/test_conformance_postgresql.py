"""The PostgreSQL store keeps the Store port's promises: by its URL, past a pooler, and on handed pools."""

from __future__ import annotations

from typing import Any

import pytest

import atoll.urls
from atoll.verify import conformance_store
from atoll.verify.conformance import NotTested

OPTIONS = [
    "",
    "?notify=off&poll_s=0.02&history_max=300&dedupe_window_s=5",
    "?operations_max=64&key_bytes_max=100&value_bytes_max=1000",
]
SLOW = {"ten_thousand_children_are_listed"}
OF_LIMITS = {
    "limits_are_kept_exactly",
    "values_are_any_bytes",
    "pages_join_without_a_gap",
    "a_transaction_happens_whole_or_not_at_all",
    "no_reader_sees_half_of_an_ended_lease",
    "an_observer_ends_up_with_the_picture_that_is_there",
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("function", [pytest.param(f, id=name) for name, f in conformance_store.CASES])
async def test_the_store_keeps_its_promises(function: Any, options: str, shared: Any) -> None:
    if options and function.__name__ in SLOW:
        pytest.skip("slow, and the same with other limits")
    if "operations_max" in options and function.__name__ not in OF_LIMITS:
        pytest.skip("nothing of it depends on the limits")
    url = shared("postgresql", fsync=False).url
    made: list[Any] = []

    def make() -> Any:
        made.append(atoll.urls.store(f"{url}{options}"))
        return made[-1]

    try:
        await function(make)
    except NotTested as reason:
        pytest.skip(f"not claimed: {reason}")
    finally:
        for store in made:
            await store.close()
