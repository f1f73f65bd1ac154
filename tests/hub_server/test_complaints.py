"""What fails a test by itself: unknown routes, crashes, tokens and traffic where they do not belong."""

from __future__ import annotations

import socket

import httpx2
import pytest

from tests.hub_server import HubServer, guard


def test_what_fails_a_test_whatever_it_asserts(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.complaints() == []
    assert httpx2.get(f"{hub.endpoint}/api/nothing-of-the-kind?a=1").status_code == 404
    httpx2.get(f"{hub.cdn}/objects/0", headers={"Authorization": f"Bearer {hub.token('alice')}"})
    monkeypatch.setattr(hub, "visible", None)
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{hub.endpoint}/api/models/a/b")
    no_route, crash, leak = hub.complaints()
    assert "GET hub /api/nothing-of-the-kind?a=1" in no_route
    assert "TypeError" in crash
    assert "alice:write" in leak
    assert hub.token("alice") not in leak
    hub.reset()


def test_traffic_to_elsewhere_is_stopped_and_noted() -> None:
    with socket.socket() as outside, pytest.raises(guard.TrafficLeavesTheMachine):
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(guard.TrafficLeavesTheMachine):
        socket.getaddrinfo("huggingface.co", 443)
    assert guard.violations == ["socket.connect ('192.0.2.1', 80)", "socket.getaddrinfo 'huggingface.co'"]
    guard.violations.clear()  # else the fixture would fail this test, as it should any other
