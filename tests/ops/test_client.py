"""Tests of the small client."""

from ops.client import Client, Reply
from ops.stack import Stack


def test_a_dotted_path_leads_to_what_is_there_and_to_nothing_where_nothing_is() -> None:
    reply = Reply(200, {}, {"a": {"b": 1}, "c": [1]}, 0.1)
    assert (reply.at("a.b"), reply.at("a.x"), reply.at("c.b"), reply.at("x.y.z")) == (1, None, None, None)


def test_requests_share_a_connection_and_name_their_reply(stack: Stack) -> None:
    client = Client(stack.api_url, stack.key)
    assert client.post({"action": "actions"}).at("result.count") > 20
    refused = client.post({"action": "teleport"})
    assert (refused.status, refused.at("error.code")) == (400, "UNKNOWN_ACTION")
    assert refused.headers["x-request-id"] == refused.at("error.request_id")
    assert refused.took_ms > 0
    client.close()


def test_an_answer_that_is_no_json_object_is_shown_and_not_a_crash(stack: Stack) -> None:
    client = Client(stack.sandbox.origin)
    assert client.get("/no-such-page").status == 404
    assert "(not a JSON object)" in Client(stack.sandbox.origin).get("/_sandbox/faults").body
    client.close()
