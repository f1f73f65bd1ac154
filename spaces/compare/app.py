"""The Space: reads its configuration, opens the service, and launches the page.

On the Hub it runs from its own folder, with `space.json` and the package beside it; `inspo-hub space preview` names
another configuration.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

# Nothing here reports to anybody; read when Gradio is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from compare_page import look
from compare_page.blocks import Page
from compare_page.gpu import on_gpu, where  # before torch, which is imported when models are opened

from inspo_hub.errors import InspoError
from inspo_hub.space import open_service, read_config

HERE = Path(__file__).resolve().parent


def build(config_file: Path, votes: Path) -> tuple[Page, Any]:
    """The page of a configuration, and the schedule that pushes its votes, None where they stay here."""
    config = read_config(config_file)
    service, schedule = open_service(config, config_file.parent, votes)
    if service.backend is not None:
        service.backend = on_gpu(service.backend)
    report = None if config.report is None else (config_file.parent / config.report.path).resolve()
    return Page(service, report, where=where(config.backend)), schedule


def launch(page: Page, **options: Any) -> Any:
    """Serves the page; `options` are Gradio's. Returns what Gradio returns: the app, and its address."""
    limits = page.config.limits
    page.blocks.queue(max_size=limits.queue, default_concurrency_limit=limits.at_once)
    return page.blocks.launch(
        theme=look.theme(),
        css_paths=[look.CSS],
        js=look.SCRIPT.read_text(encoding="utf-8"),
        mcp_server=True,
        footer_links=["api", "settings"],
        ssr_mode=False,
        **options,
    )


def main() -> None:
    """Runs until a person or the Hub, which starts Spaces again, stops it; the last votes are pushed then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    file = Path(os.environ.get("INSPO_SPACE_CONFIG", HERE / "space.json"))
    votes = Path(os.environ.get("INSPO_SPACE_VOTES", file.parent / "votes"))
    try:
        page, schedule = build(file, votes)
    except InspoError as error:
        sys.exit(f"error: {error}")
    try:
        launch(page, inbrowser=bool(os.environ.get("INSPO_SPACE_BROWSER")))
    finally:
        if schedule is not None:
            schedule.close()


if __name__ == "__main__":
    main()
