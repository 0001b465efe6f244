"""S-01: whatever a program sends to the API, the answer is one that its description knows, and never a 5xx."""

from __future__ import annotations

import json

from tests.faults.conftest import scaled
from tests.fuzz.contract_run import fuzz
from tests.fuzz.site import RunningSite

SEED = 20261120


def test_thousands_of_requests_get_described_answers_and_never_a_server_error(site: RunningSite) -> None:
    outcome = fuzz(site, n_each=scaled(280, 3), seed=SEED)
    print(
        json.dumps(
            {
                "seed": SEED,
                "cases": outcome.n_cases,
                "server_errors": outcome.n_server_errors,
                "failures": len(outcome.failures),
                "phases": outcome.phases,
                "statuses": outcome.statuses,
                "p99_s": round(outcome.p99_s(), 3),
            }
        )
    )
    assert outcome.n_cases >= scaled(10_000, 400)
    assert {"coverage", "fuzzing", "stateful"} <= outcome.phases.keys()
    assert outcome.n_server_errors == 0
    assert outcome.failures == [], "\n\n".join(outcome.failures[:5])
    assert outcome.p99_s() < 1.0
    assert site.is_alive
    assert "Traceback" not in site.log.read_text()
