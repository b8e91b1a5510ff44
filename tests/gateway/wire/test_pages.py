"""The pages on the wire name all there is, and what they show is what is answered."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.gateway.openapi import document
from engine.gateway.options import GatewayOptions
from engine.gateway.payments.options import PaymentsOptions
from engine.gateway.payments.refusals import status_of
from engine.gateway.problems import STATUS_OF
from engine.gateway.schemas import CLAIMS_MAX
from engine.gateway.websocket import CLAIMS_AHEAD_MAX, COMMANDS
from engine.monitor.metrics import METRICS
from engine.payments import PaymentDBCode
from engine.payments.tower import SUBSCRIPTIONS_MAX

PAGES = Path(__file__).parents[3] / "docs" / "reference"
HTTP, WEBSOCKET, METRICS_PAGE = (
    (PAGES / f"{name}.md").read_text() for name in ("http", "websocket", "metrics")
)
HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
CALLS = [
    f"{verb.upper()} {path.replace('{channel_id}', '{id}')}"
    for path, verbs in document()["paths"].items()
    for verb in verbs
]


def chapter(page: str, title: str) -> str:
    _, found, rest = page.partition(f"\n### {title}\n")
    assert found, f"no chapter {title}"
    return re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]


def example(text: str) -> dict:
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_has_the_calls_of_the_description_and_no_other():
    assert sorted(HEADING.findall(HTTP)) == sorted(CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_the_page_is_there(client, call):
    verb, path = call.split(" ")
    path = re.sub(r"\{(id|identifier)\}", "00" * 32, path).replace("{attempt_index}", "1")
    reply = client.call(verb, path, b"{}" if verb == "POST" else None)
    unknown = ("unknown_channel", "payment_not_initiated")
    assert reply.status not in (404, 405) or reply.problem["code"] in unknown
    assert client.call("PATCH", path).problem["status"] == 405


def test_the_page_has_the_commands_of_the_websocket_and_no_other():
    assert sorted(HEADING.findall(WEBSOCKET)) == sorted(COMMANDS)


def test_the_page_has_the_metrics_and_no_other():
    assert sorted(HEADING.findall(METRICS_PAGE)) == sorted(METRICS)


def test_a_metric_is_of_the_kind_and_has_the_labels_the_page_says(client):
    client.results(client.payer().claim(1, 5))
    families = text_string_to_metric_families(client.get("/metrics").body.decode())
    shown = {family.name: family for family in families}
    for name in METRICS:
        family = shown[name.removesuffix("_total")]
        text = chapter(METRICS_PAGE, name).strip()
        assert text.lower().startswith(family.type), name
        said = text.partition(". ")[0]
        for sample in family.samples:
            for label in set(sample.labels) - {"le"}:
                assert f"`{label}`" in said + text.partition(". ")[2], (name, label)


def test_every_status_is_on_the_page():
    table = HTTP.rpartition("| status | means |")[2]
    said = {int(number) for number in re.findall(r"\b[45]\d\d\b", table)}
    assert set(STATUS_OF.values()) | {405, 408, 413, 415, 422, 431} <= said


def test_every_field_of_a_channel_is_on_the_page(client):
    text = chapter(HTTP, "POST /v1/channels") + chapter(HTTP, "GET /v1/channels/{id}")
    assert [name for name in client.payer().channel if f"`{name}`" not in text] == []


def test_the_balance_on_the_page_has_the_fields_of_one(client):
    payer = client.payer()
    shown = example(chapter(HTTP, "GET /v1/channels/{id}/balance"))
    assert list(shown) == list(payer.balance())
    with client.websocket() as speaker:
        speaker.ask("subscribe", channels=[payer.id])
        assert list(example(chapter(WEBSOCKET, "subscribe"))) == list(speaker.told())


def shape(value):
    """Return a value of JSON without what differs from one payment to the next."""
    match value:
        case dict():
            return {name: shape(inner) for name, inner in value.items() if not name.isdigit()}
        case list():
            return [shape(inner) for inner in value]
        case _:
            return None if value is None else type(value)


def test_the_payment_on_the_page_has_the_fields_of_one(client):
    begins, shown = (
        example(chapter(HTTP, title))
        for title in ("POST /v1/payments", "GET /v1/payments/{identifier}")
    )
    client.call("DELETE", "/v1/payments?all_payments=true")
    assert client.post("/v1/payments", begins).status == 201
    path = f"/v1/payments/{begins['identifier']}/attempts"
    (made,) = shown["attempts"]
    body = {"session_key": "AB" * 32, "route": made["route"], "attempted_at": made["attempted_at"]}
    index = client.post(path, body).json["attempt_index"]
    with client.websocket() as speaker:
        speaker.ask("subscribe", payments=[begins["identifier"]])
        assert client.post(f"{path}/{index}/settle", made["settle"]).status == 200
        told = [speaker.told() for _ in range(3)]
    text = WEBSOCKET.partition("\n## Payments\n")[2]
    assert f"{json.dumps(told[-1])}\n" in text
    assert told[-2].pop("type") == "payment"
    assert shape(told[-2]) == shape(shown)
    sums = ("value_msat", "status", "state", "created_at")
    assert [told[-2][name] for name in sums] == [shown[name] for name in sums]


@pytest.mark.parametrize("code", PaymentDBCode)
def test_the_page_says_the_status_of_each_payment_code(code):
    row = rf"^\| {status_of(code)} \|.*`{code}`"
    assert re.search(row, HTTP, re.MULTILINE)


def test_the_result_on_the_page_has_the_fields_of_one(client):
    text = chapter(HTTP, "POST /v1/claims")
    shown = json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[1])["results"][0]
    payer = client.payer()
    results = client.results(payer.claim(1, 5), payer.claim(9, 9), payer.claim(2, 1_001))
    assert list(shown) == list(results[0])
    for name in {name for result in results for name in result}:
        assert f"`{name}`" in text or f'"{name}"' in text, name


def test_the_problem_on_the_page_has_the_fields_of_one(client):
    text = HTTP.partition("\n## Problems\n")[2]
    payer = client.payer()
    problem = client.post(f"{payer.path}/fund", {"amount": "x"}).problem
    assert set(example(text)) == set(problem) - {"param"}
    assert "`param`" in text


def test_every_field_of_the_server_is_on_the_page(client):
    text = chapter(HTTP, "GET /v1/server")
    info = client.get("/v1/server").json
    assert [n for n in [*info, *info["shards"][0]] if f"`{n}`" not in text] == []


def test_the_limits_on_the_pages_are_those_of_the_code():
    options = GatewayOptions()
    names = set(re.findall(r"`(?:gateway\.)?(\w+_(?:max|s))`", HTTP + WEBSOCKET))
    assert names - {"uptime_s"} <= {field.name for field in msgspec.structs.fields(options)}
    assert f"{CLAIMS_MAX:,} claims and {options.body_bytes_max >> 20} MiB" in HTTP
    assert f"1 to {options.page_max:,}; 100 where left out" in HTTP
    for number in (PaymentsOptions().followed_max, SUBSCRIPTIONS_MAX):
        assert f"{number:,}" in WEBSOCKET.partition("## Limits")[2]
    for number in (options.frames_in_flight_max, CLAIMS_AHEAD_MAX, options.subscriptions_max):
        assert f"{number:,}" in WEBSOCKET
