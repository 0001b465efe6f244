"""`claasbot chat`: one line, one answer; a pipe works like a person, and Ctrl-C does what they mean."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from claasbot.chat.terminal import chat_in_terminal
from claasbot.domain.conversation import Button, Commanded, Pressed, Reply, Said, Stopped
from claasbot.errors import ChatError
from claasbot.running_bot import strangers

from .conftest import person_at_the_terminal


async def test_each_piped_line_is_said_and_answered_in_order(bot, terminal):
    terminal.type("one\n\n  two  \nthree")
    terminal.hang_up()
    screen = await terminal.end()
    assert [event.text for event in bot.accepted] == ["one", "two", "three"]
    assert screen.index("echo: one\n") < screen.index("echo: two\n") < screen.index("echo: three\n")
    assert screen.count("(p1.v3)") == 3
    assert "you>" not in screen


async def test_a_line_waits_for_the_answer_before_it(bot, terminal):
    terminal.type("never ends\nnext\n")
    terminal.hang_up()
    await terminal.see("echo: ")
    await strangers(bot.path)  # what was sent before has arrived when a later request is answered
    assert [event.text for event in bot.accepted] == ["never ends"]
    bot.stopped.set()
    await terminal.end()
    assert bot.accepted[-1].text == "next"


async def test_a_refused_line_does_not_hold_up_the_next(bot, terminal):
    terminal.type("too long\nnext\n")
    terminal.hang_up()
    assert "* The message has too many characters." in await terminal.end()
    assert [event.text for event in bot.accepted] == ["too long", "next"]


async def test_a_slash_is_a_command(bot, terminal):
    terminal.type("/feedback shorter, please\n/undo\n")
    terminal.hang_up()
    screen = await terminal.end()
    assert "* did feedback" in screen and "* did undo" in screen
    assert [(event.command, event.argument) for event in bot.accepted if isinstance(event, Commanded)] == [
        ("feedback", "shorter, please"),
        ("undo", ""),
    ]


async def test_buttons_are_pressed_by_number(bot, terminal):
    terminal.type("/forget\n/2\n/3\n")
    terminal.hang_up()
    screen = await terminal.end()
    assert "/1 Delete it all   /2 Keep" in screen and "no button 3" in screen
    pressed = [event for event in bot.accepted if isinstance(event, Pressed)]
    assert [event.action for event in pressed] == ["forget:no"]
    assert pressed[0].message_key


async def test_the_consent_card_can_be_answered(bot, terminal):
    terminal.type("hello\n")
    await terminal.see("/1 Yes, learn from me")
    terminal.type("/1\n")
    await terminal.see("did consent:yes")


async def test_marks_and_notices_come_by_themselves(bot, terminal):
    terminal.type("hello\n")
    await terminal.see("(p1.v3)")
    for mark, words in (("noted", "noted"), ("queued", "learning…"), (None, "taken back")):
        await bot.console.mark(bot.console.address, "1", mark)
        await terminal.see(f"* {words}")


async def test_two_versions_are_compared_by_the_bot(bot, terminal):
    terminal.type("/compare What is rain?\n/compare\n")
    terminal.hang_up()
    assert (await terminal.end()).count("* did compare") == 2
    assert [event.argument for event in bot.accepted] == ["What is rain?", ""]


async def test_see_difference_is_a_button_like_any_other(bot, terminal):
    terminal.type("hello\n")
    await terminal.see("/1 Yes, learn from me")
    buttons = (Button(label="See difference", action="compare"), Button(label="Undo", action="undo:3"))
    learned = Reply(text="Learned.", notice=True, buttons=buttons, data={"said": "shorter"})
    await bot.console.send(bot.console.address, learned)
    await terminal.see("/1 See difference   /2 Undo")
    terminal.type("/1\n")
    await terminal.see("* did compare")
    assert isinstance(bot.accepted[-1], Pressed)


async def test_an_answer_that_was_cut_says_so(bot, terminal):
    terminal.type("too much\n")
    await terminal.see("echo: too much\n     (p1.v3, cut at the length limit)\n")


async def test_what_the_api_refuses_is_shown(bot, terminal):
    terminal.type("/export\n")
    await terminal.see("* Nothing is stored about you yet")


async def test_an_export_is_saved_here_and_never_over_a_file(bot, terminal, tmp_path, monkeypatch):
    await person_at_the_terminal(bot)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "claasbot-p1.zip").write_text("mine")
    terminal.type("/export\n")
    terminal.hang_up()
    assert f"saved as {folder}/claasbot-p1-2.zip" in await terminal.end()
    assert (folder / "claasbot-p1.zip").read_text() == "mine"
    assert (folder / "claasbot-p1-2.zip").read_bytes() == b"PK everything"
    assert stat.S_IMODE((folder / "claasbot-p1-2.zip").stat().st_mode) == 0o600
    assert list(tmp_path.glob("claasbot*.zip")) == []  # `../` in a name leads nowhere


async def test_an_answer_cannot_steer_the_terminal(bot, terminal):
    terminal.type("\x1b]0;owned\x07\x1b[2Jhi\n")
    await terminal.see("echo: ")
    terminal.hang_up()
    screen = await terminal.end()
    assert "\x1b" not in screen and "\x07" not in screen and "hi" in screen


async def test_ctrl_c_stops_the_answer_and_then_leaves(bot, tty):
    await tty.see("you> ")
    tty.type("never ends\n")
    await tty.see("echo: ")
    os.kill(os.getpid(), signal.SIGINT)
    await tty.see("(p1.v3, stopped)\nyou> ")
    assert isinstance(bot.accepted[-1], Stopped)
    os.kill(os.getpid(), signal.SIGINT)
    await tty.end()


async def test_a_second_ctrl_c_leaves_an_answer_that_does_not_end(bot, tty):
    await tty.see("you> ")
    tty.type("never ends\n")
    await tty.see("echo: ")
    obeyed, bot.stopped = bot.stopped, asyncio.Event()  # what the answer waits for is not what a stop sets
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(bot.stopped.wait(), 5)
    os.kill(os.getpid(), signal.SIGINT)
    await tty.end()
    assert not obeyed.is_set()


async def test_ctrl_d_at_the_prompt_leaves(bot, tty):
    await tty.see("you> ")
    tty.type("\x04")
    await tty.end()
    assert bot.accepted == []


async def test_a_notice_does_not_tear_the_prompt(bot, tty):
    await tty.see("you> ")
    await bot.console.mark(bot.console.address, "1", "noted")
    await tty.see("\r\x1b[K* noted\nyou> ")


async def test_without_a_bot_it_says_how_to_start_one(tmp_path):
    with pytest.raises(ChatError, match=r"start it with `.*claasbot run`"):
        await chat_in_terminal(tmp_path / "none.sock", input_fd=0)


async def test_a_bot_that_stops_is_told(bot, terminal):
    terminal.type("hello\n")
    await terminal.see("(p1.v3)")
    await bot.server.stop()
    with pytest.raises(ChatError, match="claasbot run"):
        await terminal.end()


@pytest.mark.parametrize("source", ["file", "nothing"])
async def test_a_plain_file_is_read_like_a_pipe(bot, tmp_path, source):
    """As `claasbot chat < questions.txt`: epoll refuses plain files."""
    questions = tmp_path / "questions.txt"
    questions.write_text("one\ntwo\n")
    program = "import asyncio, sys, pathlib; from claasbot.chat.terminal import chat_in_terminal as c; "
    program += "asyncio.run(c(pathlib.Path(sys.argv[1])))"
    path = questions if source == "file" else Path(os.devnull)
    with path.open() as stdin:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(bot.path), stdin=stdin, stdout=subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    said = [event.text for event in bot.accepted if isinstance(event, Said)]
    assert said == (["one", "two"] if source == "file" else [])
    assert ("echo: two" in output.decode()) == (source == "file")
