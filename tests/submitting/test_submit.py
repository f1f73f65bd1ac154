"""`inspo-hub submit` against the test Hub, with the real client: what is asked for, refused, and becomes of it."""

from __future__ import annotations

import base64
import io
import itertools
import os
import signal
import subprocess
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inspo_hub import hub as client
from inspo_hub.plan.memory import Engine
from inspo_hub.recipe import load_recipe, parse_recipe
from inspo_hub.submitting import Wishes, follow_to_the_end, labels_of, make_submission, request
from inspo_hub.submitting.inputs import LARGEST, pack
from inspo_hub.submitting.request import ENDED, INPUTS, SCRIPT, Submission
from tests.hub_server.jobs import Job
from tests.submitting.conftest import Desk, ends, lost, planned_once, plays

JUDGE = "def score(prompt, answer):\n    return len(answer)\n"
EVALUATE = "evaluate: {{prompts: {{id: {rows}}}, judge: {{python: ./code/judge.py:score}}}}\n"


def unpacked(text: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text)), mode="r:gz") as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}  # type: ignore[union-attr]


# --- what is asked for


def test_a_dry_run_is_the_request_that_is_sent_and_holds_no_token(desk: Desk) -> None:
    token = os.environ["HF_TOKEN"]
    dry = desk.submit("--dry-run", "--json")
    assert (dry.exit_code, desk.jobs) == (0, [])
    asked = dry.facts["request"]

    desk.hub.machine = plays(ends(0))
    assert desk.submit().exit_code == 0
    [job] = desk.jobs
    assert job.spec == {
        "dockerImage": asked["image"],
        "command": asked["command"],
        "arguments": [],
        "environment": asked["env"],
        "flavor": "cpu-basic",
        "secrets": {"HF_TOKEN": token},
        "timeoutSeconds": asked["timeout_s"],
        "labels": asked["labels"],
    }
    for told in (dry, desk.submit("--dry-run")):
        assert token not in told.out + told.err


def test_the_request_carries_the_recipe_its_hash_and_the_settings_of_the_machine(desk: Desk) -> None:
    recipe = load_recipe(desk.recipe)
    facts = desk.submit("--dry-run", "--json").facts
    request = facts["request"]
    assert request["labels"] == labels_of(recipe)
    assert request["labels"]["inspo-recipe"] == recipe.sha256()[:40]
    files = unpacked(request["env"][INPUTS])
    assert parse_recipe(files["recipe.yaml"].decode()).sha256() == recipe.sha256() == facts["recipe_sha256"]
    command = request["command"]
    assert command[:4] == ["bash", "-c", SCRIPT, "inspo"]
    assert command[4:8] == ["uv", "run", "--no-project", "--with"]
    assert command[8].startswith("inspo-hub[train]==")
    settings = [word for word in command if word.startswith("train.")]
    assert [text.partition("=")[0] for text in settings] == [
        "train.tokens_per_microbatch",
        "train.activation_checkpointing",
    ]
    assert load_recipe(desk.recipe, settings).sha256() == recipe.sha256(), "fitting it to a machine is no other recipe"
    assert command[command.index("--resume") + 1] == "hub"


def test_several_gpus_are_launched_with_accelerate(desk: Desk) -> None:
    command = desk.submit("--dry-run", "--json", "--flavor", "l4x4").facts["request"]["command"]
    assert command[9:11] == ["accelerate", "launch"]
    assert command[command.index("--num_processes") + 1] == "4"


@pytest.mark.parametrize(("engine", "package"), [("fsdp2", []), ("zero3", ["deepspeed"])])
def test_the_engines_profile_travels_and_its_package_is_installed(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, package: list[str]
) -> None:
    profile = tmp_path / "shipped" / "accelerate" / f"{engine}.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("num_machines: 1\n")
    monkeypatch.setattr(request, "shipped_folder", lambda: tmp_path / "shipped")
    recipe = load_recipe(desk.recipe)
    found = planned_once(recipe, flavor="l4x4", gpus=None)
    assert found.chosen is not None
    assert found.chosen.setting is not None
    chosen = replace(found.chosen, setting=replace(found.chosen.setting, engine=engine))
    asked = make_submission(recipe, replace(found, chosen=chosen), Wishes()).request
    assert unpacked(asked.env[INPUTS])["accelerate.yaml"] == b"num_machines: 1\n"
    command = list(asked.command)
    assert command[command.index("launch") + 1 :][:4] == ["--config_file", "accelerate.yaml", "--num_processes", "4"]
    installed = [after for word, after in itertools.pairwise(command) if word == "--with"]
    assert installed[1:] == package


def test_judge_and_template_travel_and_the_hash_stays(desk: Desk) -> None:
    (desk.recipe.parent / "code").mkdir()
    (desk.recipe.parent / "code" / "judge.py").write_text(JUDGE)
    desk.write(EVALUATE.format(rows=desk.world.rows))
    files = unpacked(desk.submit("--dry-run", "--json").facts["request"]["env"][INPUTS])
    assert files["code/judge.py"].decode() == JUDGE
    there = desk.recipe.parent / "elsewhere"
    for name, content in files.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    assert load_recipe(there / "recipe.yaml").sha256() == load_recipe(desk.recipe).sha256()


def test_inputs_are_packed_alike_and_within_the_limit() -> None:
    files = {"recipe.yaml": b"version: 1\n", "judge.py": b"x = 1\n"}
    assert pack(files) == pack(dict(reversed(files.items())))
    assert unpacked(pack(files)) == files
    with pytest.raises(Exception, match=rf"at most {LARGEST:,} characters") as told:
        pack({"judge.py": os.urandom(LARGEST)})
    assert "judge.py 120,000 B" in str(told.value)


@pytest.mark.parametrize(("asked", "seconds"), [("90m", 5400), ("1.5h", 5400), ("2d", 172_800), ("600", 600)])
def test_a_time_limit_may_be_given(desk: Desk, asked: str, seconds: int) -> None:
    assert desk.submit("--dry-run", "--json", "--timeout", asked).facts["request"]["timeout_s"] == seconds


def test_the_time_limit_is_the_plans_with_its_margin_and_no_longer_than_the_money_lasts(desk: Desk) -> None:
    facts = desk.submit("--dry-run", "--json").facts
    assert facts["request"]["timeout_s"] > facts["expected_hours"] * 3600 * 1.5
    money = facts["expected_usd"] * 1.2
    capped = desk.submit("--dry-run", "--json", "--max-usd", str(money)).facts
    assert capped["request"]["timeout_s"] < facts["request"]["timeout_s"]
    assert capped["most_usd"] <= money


# --- what is refused


def test_local_models_and_data_are_refused_before_anything_is_asked(desk: Desk) -> None:
    (desk.recipe.parent / "rows.jsonl").write_text("{}\n")
    desk.write(recipe=desk.world.recipe.replace(f"train: [{{id: {desk.world.rows}}}]", "train: [{id: ./rows.jsonl}]"))
    told = desk.submit()
    assert told.exit_code == 2
    assert "a Job cannot see what lies on this machine only" in told.err
    assert f"data.train.0.id: {desk.recipe.parent / 'rows.jsonl'}" in told.err
    assert "hf upload OWNER/NAME FOLDER --private" in told.err
    assert desk.hub.log.count() == 0


def test_a_recipe_that_publishes_nothing_is_refused(desk: Desk) -> None:
    desk.write(strategy=None)
    told = desk.submit("--dry-run")
    assert told.exit_code == 2
    assert "would be published nowhere, and a Job's disk goes with it" in told.err


def test_a_judge_elsewhere_cannot_travel(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    judge = tmp_path_factory.mktemp("elsewhere") / "judge.py"
    judge.write_text(JUDGE)
    desk.write(EVALUATE.format(rows=desk.world.rows).replace("./code/judge.py", str(judge)))
    told = desk.submit("--dry-run")
    assert (told.exit_code, "does not lie beside the recipe" in told.err) == (2, True)


def test_too_dear_is_refused_with_numbers(desk: Desk) -> None:
    told = desk.submit("--flavor", "a100-large", "--max-usd", "0.001")
    assert (told.exit_code, desk.jobs) == (2, [])
    assert "the run is expected to cost $" in told.err


def test_what_the_token_may_not_do_is_told_before_it_costs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", desk.hub.token("bob"))
    told = desk.submit()
    assert (told.exit_code, desk.jobs) == (3, [])
    assert "bob does not belong to alice" in told.err
    scopes = {"alice": ["repo.write", "repo.content.read"]}
    monkeypatch.setenv("HF_TOKEN", desk.hub.add_token("alice", "fineGrained", scopes))
    told = desk.submit()
    assert told.exit_code == 3
    assert "may run Jobs for this namespace" in told.err


def test_a_secret_without_a_value_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told = desk.submit("--secret", "JUDGE_KEY")
    assert (told.exit_code, "no value for JUDGE_KEY" in told.err) == (3, True)
    monkeypatch.setenv("JUDGE_KEY", "hush-hush-12345")
    desk.hub.machine = plays(ends(0))
    told = desk.submit("--secret", "JUDGE_KEY")
    assert told.exit_code == 0
    assert desk.jobs[0].spec["secrets"]["JUDGE_KEY"] == "hush-hush-12345"
    assert "hush-hush" not in told.out + told.err


def test_an_account_without_credits_is_told(desk: Desk) -> None:
    desk.hub.accounts.users["alice"].can_pay = False
    try:
        told = desk.submit()
    finally:
        desk.hub.accounts.users["alice"].can_pay = True
    assert (told.exit_code, "add credits to the account that pays" in told.err) == (3, True)


def test_a_time_that_is_none_is_a_usage_error(desk: Desk) -> None:
    told = desk.submit("--timeout", "soon")
    assert (told.exit_code, "'soon' is no time such as 90m, 6h, 2d, or auto" in told.err) == (2, True)


# --- what becomes of it


def test_a_job_is_followed_to_its_end(desk: Desk) -> None:
    desk.hub.machine = plays(ends(0, "step 1", "step 2"))
    told = desk.submit()
    assert told.exit_code == 0
    lines = told.out.splitlines()
    assert lines[:2] == ["step 1", "step 2"]
    assert lines[2].startswith("done: http")
    assert f"started Job {desk.jobs[0].id}" in told.err


def test_for_programs_the_log_goes_to_stderr(desk: Desk) -> None:
    desk.hub.machine = plays(ends(4, "loss is nan"))
    told = desk.submit("--json")
    assert told.exit_code == told.facts["exit_code"] == 4
    assert told.facts["ok"] is False
    assert "loss is nan" in told.err
    assert [job["id"] for job in told.facts["jobs"]] == [desk.jobs[0].id]


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_lost_job_goes_on_from_the_hub(desk: Desk, by_signal: bool) -> None:
    first = ends(130, "step 1") if by_signal else lost("step 1")
    desk.hub.machine = plays(first, ends(0, "resuming from step 1", "step 2"))
    told = desk.submit()
    assert told.exit_code == 0
    assert told.out.splitlines()[:3] == ["step 1", "resuming from step 1", "step 2"]
    assert "was lost" in told.err
    assert len(desk.jobs) == 2
    assert all(job.spec["command"][-6:-4] == ["--resume", "hub"] for job in desk.jobs)


def test_a_lost_job_without_checkpoints_on_the_hub_is_not_paid_twice(desk: Desk) -> None:
    desk.write(strategy="end")
    desk.hub.machine = plays(lost("step 1"))
    told = desk.submit()
    assert (told.exit_code, len(desk.jobs)) == (3, 1)
    assert "was lost (ERROR: Node was taken away)" in told.err
    assert "with `publish.strategy: checkpoint` the next one can go on where this one was lost" in told.err


def test_a_job_is_started_again_only_so_often(desk: Desk) -> None:
    desk.hub.machine = plays(lost("step 1"))
    told = desk.submit("--resubmit", "1")
    assert (told.exit_code, len(desk.jobs)) == (3, 2)


def test_what_was_spent_is_not_spent_again(desk: Desk) -> None:
    """The second Job may last no longer than what is left of the money, and none is started when nothing is."""
    desk.hub.machine = plays(lost("step 1"))
    facts = desk.submit("--dry-run", "--json", "--max-usd", "1").facts
    submission = _as_submission(desk, facts)
    following = submission.again(0.25)
    assert following is not None
    assert following.request.timeout_s == pytest.approx(min(submission.request.timeout_s, 0.75 / 0.01 * 3600), abs=2)
    assert submission.again(1.0) is None


def _as_submission(desk: Desk, facts: dict) -> Submission:  # type: ignore[type-arg]
    asked = facts["request"]
    return Submission(
        request=client.JobRequest(
            image=asked["image"],
            command=tuple(asked["command"]),
            env=asked["env"],
            secrets=tuple(asked["secrets"]),
            flavor=asked["flavor"],
            timeout_s=asked["timeout_s"],
            labels=asked["labels"],
        ),
        files={},
        recipe_sha256=facts["recipe_sha256"],
        usd_per_hour=0.01,
        expected_usd=None,
        expected_hours=None,
        max_usd=1.0,
        repos={},
        targets=(),
        resumable=True,
    )


def test_a_cancelled_job_is_over(desk: Desk) -> None:
    desk.hub.machine = plays(lambda job: job.finish("CANCELED"))
    told = desk.submit()
    assert (told.exit_code, len(desk.jobs)) == (130, 1)


def test_detached_it_runs_alone_and_attached_it_is_followed(desk: Desk) -> None:
    told = desk.submit("--detach")
    [job] = desk.jobs
    assert told.exit_code == 0
    assert f"follow: inspo-hub submit {desk.recipe} --attach" in told.out
    told = desk.submit()
    assert (told.exit_code, len(desk.jobs)) == (2, 1)
    assert "a Job of this recipe is running already" in told.err
    job.start()
    ends(0)(job)
    told = desk.submit("--attach")
    assert (told.exit_code, "no Job of this recipe is running" in told.err) == (2, True)
    desk.hub.machine = plays(ends(0, "again"))
    assert (desk.submit().exit_code, len(desk.jobs)) == (0, 2), "it is over: another may start"


def test_attach_follows_the_running_job(desk: Desk) -> None:
    desk.submit("--detach")
    [job] = desk.jobs
    job.start()
    threading.Timer(0.5, lambda: ends(0, "step 9")(job)).start()
    told = desk.submit("--attach")
    assert (told.exit_code, len(desk.jobs)) == (0, 1)
    assert told.out.startswith("step 9\n")


@pytest.mark.parametrize("cancel", [False, True])
def test_an_interrupt_cancels_if_asked_and_otherwise_says_how(
    desk: Desk, cancel: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def runs_on(job: Job) -> None:
        job.say("step 1")
        job.wait("CANCELED", timeout=20) if cancel else None

    desk.hub.machine = plays(runs_on)
    submission = _as_submission(desk, desk.submit("--dry-run", "--json").facts)
    job = client.start_job(submission.request)

    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_to_the_end(submission, job, interrupted, cancel=cancel)
    assert desk.jobs[0].stage == ("CANCELED" if cancel else "RUNNING")
    assert cancel or f"`hf jobs cancel {job.id}` ends it" in caplog.text


def test_a_log_that_breaks_off_is_taken_up_again_without_repeating(desk: Desk) -> None:
    """The server ends the stream of a silent Job; what was told is not told twice."""
    desk.hub.log_patience = 0.2

    def slow(job: Job) -> None:
        job.say("step 1")
        time.sleep(0.8)
        ends(0, "step 2")(job)

    desk.hub.machine = plays(slow)
    told = desk.submit()
    assert (told.exit_code, told.out.splitlines()[:2]) == (0, ["step 1", "step 2"])


# --- the script


def script(folder: Path, *command: str) -> subprocess.Popen[str]:
    inputs = pack({"recipe.yaml": b"version: 1\n"})
    return subprocess.Popen(
        ["bash", "-c", SCRIPT, "inspo", *command],
        cwd=folder,
        env={"PATH": os.environ["PATH"], INPUTS: inputs},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("exit_code", [0, 4])
def test_the_script_unpacks_runs_and_says_how_it_ended(tmp_path: Path, exit_code: int) -> None:
    code = f'cat recipe.yaml; echo "[${{{INPUTS}:-gone}}]"; exit {exit_code}'
    job = script(tmp_path, "bash", "-c", code)
    out, _ = job.communicate(timeout=20)
    assert (job.returncode, out) == (exit_code, f"version: 1\n[gone]\n{ENDED} {exit_code}\n")


def test_the_script_hands_a_signal_to_the_run_and_waits_for_it(tmp_path: Path) -> None:
    code = "trap 'echo saved; exit 130' TERM; echo ready; while true; do sleep 0.05; done"
    job = script(tmp_path, "bash", "-c", code)
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=20)
    assert (job.returncode, out) == (130, f"saved\n{ENDED} 130\n")
