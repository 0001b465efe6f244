"""The demonstration's bookkeeping, on a server whose adapters of taught people obey."""

from claasbot.domain.conversation import Message
from claasbot.evals.demo import Stack, run_demo
from claasbot.evals.report import write_report
from claasbot.evals.suite import Suite
from tests.services.world import running_world

SUITE = Suite(
    name="toy",
    preference="One sentence, <please>.",
    neutral="Thanks.",
    scorer="one_short_sentence",
    training=("One?", "Two?", "Three?"),
    held_out=("Four?", "Five?"),
)


def obeys_when_taught(messages: tuple[Message, ...], model: str) -> str:
    """Person 1 is the first of the arms, who says the preference; a base model rambles."""
    return "Yes, it is." if model.startswith("p1.") else "Well. That depends. " * 3


async def test_each_arm_is_taught_and_scored_apart(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        world.server.rules = (obeys_when_taught, *world.server.rules)
        stack = Stack(
            chat=world.chat,
            platform="console",
            store=store,
            server=world.server,
            serving=world.cycle.serving,
            rules=world.cycle.rules.chat,
        )
        lines: list[str] = []
        result = await run_demo(stack, SUITE, seeds=range(1), n_feedbacks=2, say=lines.append)
        summary = result.summary()
        assert (summary["compliance_before"], summary["compliance_after"]) == (0.0, 1.0)
        assert (summary["control_no_learning"], summary["control_neutral"]) == (0.0, 0.0)
        assert summary["feedbacks"] == 2.0
        assert result.of("no_learning")[0].after.version_name == "base"
        assert result.of("neutral")[0].after.version_name == "p3.v2"
        assert len(world.engine.seen.ran) == 4

        write_report(result, tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert "&lt;please&gt;" in page
        assert page.count("<polyline") == 3
