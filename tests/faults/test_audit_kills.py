"""S-26 under R-01: the bot is killed while admins act; every act that was answered has its row, and the chain holds."""

from __future__ import annotations

import http.client
import random
import threading
import time

from claasbot.storage import audit
from tests.faults.conftest import scaled
from tests.faults.dry_bot import DryBot

SEED = 26


class Admin(threading.Thread):
    """Pauses and resumes as fast as it is answered."""

    def __init__(self, bot: DryBot) -> None:
        super().__init__(daemon=True)
        self.bot = bot
        self.n_answered = 0

    def run(self) -> None:
        try:
            while True:
                self.bot.ask("POST", "/api/learning", {"paused": self.n_answered % 2 == 0})
                self.n_answered += 1
        except (OSError, http.client.HTTPException):  # it was killed
            return


def test_no_kill_loses_a_row_or_breaks_the_chain(tmp_path, totals):
    drawn, n_kills, n_answered = random.Random(SEED), scaled(100, 3), 0
    for _ in range(n_kills):
        bot = DryBot(tmp_path, CLAASBOT_WEB__WRITES_PER_MINUTE="999999")
        bot.start()
        admin = Admin(bot)
        admin.start()
        time.sleep(drawn.uniform(0.05, 0.4))
        bot.kill()
        admin.join(timeout=10)
        n_answered += admin.n_answered
    bot = DryBot(tmp_path)
    bot.start()
    chain = audit.Chain(**bot.ask("GET", "/api/audit")["chain"])
    n_acts = bot.rows("SELECT count(*) FROM audit WHERE did LIKE 'learning: %'")[0][0]
    bot.stop()
    totals["kills"] += n_kills
    totals["lost"] += max(0, n_answered - n_acts)
    print(f"seed {SEED}: {n_kills} kills, {n_answered} acts answered, {n_acts} written down, {chain.n_rows} rows")
    assert chain.trouble == ""
    assert n_answered <= n_acts <= n_answered + n_kills
    assert n_acts > n_kills
