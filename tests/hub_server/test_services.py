"""Spaces, jobs, collections and token exchange, with the real client."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, JobNotFoundError

from tests.hub_server import HubServer
from tests.hub_server.jobs import Job
from tests.test_hub_server import status_of


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token("alice"))


def test_a_space_is_made_configured_and_run(hub: HubServer, api: HfApi) -> None:
    repo = hub.unique("space")
    api.create_repo(repo, repo_type="space", space_sdk="gradio", space_secrets=[{"key": "HF_TOKEN", "value": "hush"}])
    assert hub.files(repo, type="space").keys() == {"README.md"}
    assert api.get_space_runtime(repo).stage == "NO_APP_FILE"
    api.upload_file(repo_id=repo, repo_type="space", path_or_fileobj=b"print()", path_in_repo="app.py")
    runtime = api.wait_for_space(repo)
    assert (runtime.stage, runtime.hardware) == ("RUNNING", "cpu-basic")
    api.add_space_secret(repo, "OTHER", "hush", description="what for")
    api.add_space_variable(repo, "MODEL", "alice/model")
    assert api.get_space_variables(repo)["MODEL"].value == "alice/model"
    assert set(api.get_space_secrets(repo)) == {"HF_TOKEN", "OTHER"}
    secrets = hub.repo(repo, "space").settings["secrets"]
    assert isinstance(secrets, dict)
    assert secrets["HF_TOKEN"]["value"] == "hush"
    api.delete_space_secret(repo, "OTHER")
    api.delete_space_variable(repo, "MODEL")
    assert api.get_space_variables(repo) == {}
    assert api.request_space_hardware(repo, "t4-small", sleep_time=60).requested_hardware == "t4-small"
    assert api.pause_space(repo).stage == "PAUSED"
    assert api.restart_space(repo).stage == "RUNNING"
    bob = HfApi(endpoint=hub.endpoint, token=hub.token("bob"))
    with pytest.raises(HfHubHTTPError) as error:
        bob.pause_space(repo)
    assert status_of(error) == 403
    info = api.space_info(repo)
    assert (info.sdk, info.runtime and info.runtime.stage) == ("gradio", "RUNNING")


def test_a_job_runs_is_followed_and_ends(hub: HubServer, api: HfApi) -> None:
    def machine(job: Job) -> None:
        job.start()
        for step in range(3):
            job.say(f"step {step}")
        job.finish()

    hub.machine = machine
    job = api.run_job(
        image="python:3.12",
        command=["python", "-m", "inspo_hub.run", "recipe.yaml"],
        secrets={"HF_TOKEN": "hf_hush"},
        env={"A": "1"},
        flavor="a10g-small",
        timeout="2h",
        labels={"recipe": "abc"},
    )
    assert list(api.fetch_job_logs(job_id=job.id, follow=True)) == ["step 0", "step 1", "step 2"]
    done = api.inspect_job(job_id=job.id)
    assert (done.status.stage, done.flavor, done.environment) == ("COMPLETED", "a10g-small", {"A": "1"})
    spec = hub.jobs[job.id].spec
    assert (spec["timeoutSeconds"], spec["secrets"], spec["labels"]["recipe"]) == (7200, {"HF_TOKEN": "hf_hush"}, "abc")
    assert "hf_hush" not in json.dumps(hub.jobs[job.id].describe())
    assert [row.id for row in api.list_jobs(labels={"recipe": "abc"}, namespace="alice")] == [job.id]
    assert list(api.fetch_job_logs(job_id=job.id, tail=1)) == ["step 2"]


def test_a_job_is_canceled_and_what_is_wrong_is_refused(hub: HubServer, api: HfApi) -> None:
    job = api.run_job(image="python:3.12", command=["sleep", "1"])
    hub.jobs[job.id].start()
    threading.Timer(0.2, lambda: api.cancel_job(job_id=job.id)).start()
    assert list(api.fetch_job_logs(job_id=job.id, follow=True)) == []
    assert api.inspect_job(job_id=job.id).status.stage == "CANCELED"
    with pytest.raises(JobNotFoundError):
        api.inspect_job(job_id="0" * 24)
    with pytest.raises(HfHubHTTPError, match="not a hardware"):
        api.run_job(image="python:3.12", command=["true"], flavor="t9000")
    with pytest.raises(HfHubHTTPError, match="no permission to run jobs"):
        HfApi(endpoint=hub.endpoint, token=hub.token("alice", "read")).run_job(image="a", command=["b"])
    hub.add_user("poor")
    hub.accounts.users["poor"].can_pay = False
    with pytest.raises(HfHubHTTPError, match="credit") as error:
        HfApi(endpoint=hub.endpoint, token=hub.token("poor")).run_job(image="a", command=["b"])
    assert status_of(error) == 402


def test_the_price_list(hub: HubServer, api: HfApi) -> None:
    prices = {row.name: row for row in api.list_jobs_hardware()}
    assert prices["h200"].unit_cost_usd * 60 == pytest.approx(5.0, rel=1e-3)
    assert prices["a100x8"].accelerator is not None
    assert prices["a100x8"].accelerator.vram == "640 GB"
    assert {row.name for row in api.list_spaces_hardware()} == set(prices)


def test_a_collection_gathers_an_experiment(hub: HubServer, api: HfApi) -> None:
    model, data = hub.unique("model"), hub.unique("data")
    hub.create_repo(model)
    hub.create_repo(data, type="dataset")
    title = f"Experiment {model}"
    made = api.create_collection(title, namespace="acme", description="twins", private=True)
    assert api.create_collection(title, namespace="acme", exists_ok=True).slug == made.slug
    api.add_collection_item(made.slug, model, "model", note="the model")
    api.add_collection_item(made.slug, data, "dataset")
    api.add_collection_item(made.slug, model, "model", exists_ok=True)
    api.add_collection_item(made.slug, "2512.23126", "paper")
    with pytest.raises(HfHubHTTPError) as error:
        api.add_collection_item(made.slug, "alice/never-made", "model")
    assert status_of(error) == 404
    found = api.get_collection(made.slug)
    assert [(item.item_id, item.note) for item in found.items] == [
        (model, "the model"),
        (data, None),
        ("2512.23126", None),
    ]
    api.update_collection_item(made.slug, found.items[2].item_object_id, position=0)
    api.delete_collection_item(made.slug, found.items[1].item_object_id)
    assert [item.item_id for item in api.get_collection(made.slug).items] == ["2512.23126", model]
    assert api.update_collection_metadata(made.slug, private=False).private is False
    assert made.slug in {row.slug for row in api.list_collections(owner="acme")}
    with pytest.raises(HfHubHTTPError):
        HfApi(endpoint=hub.endpoint, token=hub.token("bob")).add_collection_item(made.slug, model, "model")
    api.delete_collection(made.slug)


def test_a_ci_job_exchanges_its_id_token(hub: HubServer) -> None:
    from huggingface_hub._oidc import exchange_oidc_token

    mine, other = hub.unique("model"), hub.unique("model")
    hub.create_repo(mine)
    hub.create_repo(other)
    hub.trust(mine, "the.id.token")
    got = exchange_oidc_token(subject_token="the.id.token", resource=mine, endpoint=hub.endpoint)
    api = HfApi(endpoint=hub.endpoint, token=got["access_token"])
    api.auth_check(mine, write=True)
    with pytest.raises(HfHubHTTPError):
        api.auth_check(other, write=True)
    with pytest.raises(HfHubHTTPError, match="not of the trusted publisher"):
        exchange_oidc_token(subject_token="another", resource=mine, endpoint=hub.endpoint)


def test_parameters_are_read_from_headers(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    numpy, save_file = pytest.importorskip("numpy"), pytest.importorskip("safetensors.numpy").save_file
    for shard, shape in (("1", (2, 3)), ("2", (5,))):
        save_file({f"w{shard}": numpy.zeros(shape, "float32")}, tmp_path / f"model-{shard}.safetensors")
    index = {"metadata": {"total_size": 44}, "weight_map": {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    repo = hub.unique("model")
    hub.create_repo(repo, {path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert api.get_safetensors_metadata(repo).parameter_count == {"F32": 11}
    info = api.model_info(repo)
    assert info.safetensors is not None
    assert (info.safetensors.parameters, info.safetensors.total) == ({"F32": 11}, 11)
