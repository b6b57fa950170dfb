"""A6: the report is one page that stands alone, says first what came of it, and draws what broke."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from atoll.ports.register import Applied, Entry, Got
from atoll.ports.store import Put
from atoll.verify import report, revisions
from atoll.verify.crash_states import CrashReport, Loss
from atoll.verify.history import History, Transaction, Type
from atoll.verify.judgement import Answer, Judgement
from atoll.verify.run import CRASH, POWER, Report, Wish
from atoll.verify.scenario import Bite, Hardship, Line
from atoll.verify.workloads import WORKLOADS


def lost_write() -> History:
    """Two clients; a write is answered and then not there."""
    book = History()
    book.note(
        "a1.0",
        "transact",
        Transaction((Put("k/<1>", b"x"),)),
        Applied(1, (Entry("k/<1>", b"x", 1, 1),)),
        revision=1,
    )
    book.begin("k1.0", "get", "k/2")
    slow = book.begin("b1.0", "get", "k/2")
    book.note("b1.1", "get", "k/<1>", Got(None, 1), revision=1)
    book.end(slow, Type.OK, Got(None, 1), revision=1)
    return book


def made(*, broken: bool = True) -> Report:
    history = lost_write()
    judgement = revisions.judge(history) if broken else Judgement(Answer.YES, counts={"writes": 1})
    line = Line(WORKLOADS["register"].claim, "register", judgement.answer, "1 wrong of 1 write", judgement)
    line.bites = [Bite(Hardship.KILL, 3, "kills of 3 with calls in flight")]
    line.not_tested = ["a pause past the lease (not asked)"]
    done = Report(Wish(url="sqlite:///x.db", workloads=("register", CRASH), seed=88213), [line])
    done.lines.append(Line(POWER, CRASH, None, "(no disk)"))
    done.histories["register"] = history
    if broken:
        done.crashes.append(
            CrashReport(losses=[Loss(7, "only write x", "transaction 3 is lost", ("write x",))])
        )
    return done


class Page(HTMLParser):
    """Collects tags and what they refer to; complains of what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "line", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "line", "rect"):
            assert self.open.pop() == tag


def test_the_page_stands_alone() -> None:
    text = report.page(made())
    page = Page(text)
    assert page.open == []
    assert page.references == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"https?://|url\(|@import", text)
    assert "prefers-color-scheme:dark" in text


def test_the_page_says_first_what_came_of_it_and_how_to_do_it_again() -> None:
    text = report.page(made())
    assert re.search(r'<h1 class="no">1 of 2 claims broken</h1>', text)
    assert (
        "atoll verify sqlite:///x.db --workload register --workload power --seconds 10 --seed 88213" in text
    )
    assert "3 kills of 3 with calls in flight" in text
    assert "not tested: a pause past the lease (not asked)" in text
    assert "A pass is not a proof" in text


def test_the_command_that_repeats_a_run_on_a_server_of_yours_keeps_its_bounds() -> None:
    wish = Wish(url="etcd://10.0.0.1", yes=True, rate=50, bytes_max=2_500_000, seed=3)
    asked = "atoll verify etcd://10.0.0.1 --yes --rate 50 --mb 2.5 --seconds 10 --seed 3"
    assert Report(wish, []).again() == asked


def test_a_violation_is_drawn_with_what_was_found_and_expected() -> None:
    text = report.page(made())
    assert "write forgotten" in text
    assert text.count('<rect class="bad"') == 2, "the write and the read that missed it"
    assert '<rect class="open"' in text, "a call that was never answered, beside them"
    assert "k/&lt;1&gt;" in text
    assert "<1>" not in text, "what clients wrote is text, not tags"
    assert "transaction 3 is lost" in text


def test_a_page_where_all_held_has_no_red() -> None:
    text = report.page(made(broken=False))
    assert '<h1 class="yes">1 claims held, 1 not run</h1>' in text or '<h1 class="yes">' in text
    assert 'class="pill no"' not in text


def test_the_text_has_a_line_for_each_claim() -> None:
    lines = report.text(made(), Path("verify-88213.html")).splitlines()
    assert lines[0].startswith("single keys in one order  broken    1 wrong of 1 write; 3 kills")
    assert any(line.startswith("durable after power loss  not run") for line in lines)
    assert lines[-1].startswith("A pass is not a proof. Timeline: ./verify-88213.html   Again: atoll verify")


def test_the_same_is_there_for_programs() -> None:
    data = json.loads(json.dumps(report.as_data(made())))
    assert [claim["verdict"] for claim in data["claims"]] == ["broken", "not run"]
    assert data["claims"][0]["violations"]


def test_the_exit_code_says_no_before_not_known_before_yes() -> None:
    def code(*answers: Answer | None) -> int:
        return Report(Wish(url="x"), [Line(POWER, CRASH, answer) for answer in answers]).exit_code()

    assert code(Answer.YES, None) == 0
    assert code(Answer.YES, Answer.NOT_KNOWN, Answer.NO) == 1
    assert code(Answer.YES, Answer.NOT_KNOWN) == 4
    assert code(None) == 4
