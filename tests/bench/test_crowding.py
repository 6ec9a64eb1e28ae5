"""A store full of other people's accounts."""

import asyncio
import json
from pathlib import Path

from bench.contestants import raised_limits
from bench.crowding import crowd, size_of
from bench.inprocess import Instance, raw
from bench.population import link_all
from common.api_keys import PRINCIPAL_PREFIX, ApiKey
from common.settings import load
from ops.stack import issue_key, master_key
from sandbox.process import running_sandbox


def test_a_crowd_is_as_large_as_it_should_be_and_harms_nobody_who_was_there(tmp_path: Path) -> None:
    documents = tmp_path / "documents.db"
    with running_sandbox(event_step_s=0) as maker:
        env = {
            **raised_limits(),
            "CALLERS": "api_keys",
            "TOKEN_KEYS": master_key(),
            "DOCUMENTS_URL": f"sqlite:///{documents}",
            "MYBMW_ORIGIN": maker.origin,
            "LOG_LEVEL": "ERROR",
        }
        text = issue_key(env)
        key = ApiKey.parse(text)
        assert key is not None
        emails = ["one@example.com", "mini@example.com"]
        one, mini = asyncio.run(link_all(load(env), maker, f"{PRINCIPAL_PREFIX}{key.id}", emails))
        before = size_of(documents)

        crowd(documents, one.account, 500)
        # Of each: its link, its tokens, its identity, and its data key in the other file.
        assert size_of(documents) == before + 4 * 500

        instance = Instance(load(env))
        try:
            headers = {"x-api-key": text}
            for account, vin in ((one, "WBA00000000DEMO01"), (mini, "WMW00000000DEMO01")):
                reply = instance.serve(raw(headers, {"action": "fuel", "account": account.account}))
                assert json.loads(reply.body)["vin"] == vin
            assert instance.cpu_us([raw(headers, {"action": "actions"})]) > 0
        finally:
            instance.close()
