"""Tells people how a run ended, by the notifiers of Airflow that the deployment names.

From within `report`: there the sentence is at hand, in `dags test` too, with the worker's connections
and network. Callbacks of a DAG's run would come from the DAG processor, which has no report to read;
they tell of what `report` cannot, that it failed itself or that the run's time was up.
"""

from __future__ import annotations

import html
import logging
import pkgutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow.sdk import get_current_context

from include import checkpoint_migration as engine

from .deployment import NotifierSetting, read_deployment
from .runs import say

SECONDS = 60  # a notifier that takes longer is left alone: nobody waits for a mail server
UNREPORTED = "The run ended without a report: what is live and what is not, the next run will say."
TIMED_OUT = "The run's time was up, and Airflow ended it, most likely before its report."
LOOK = "look at the tasks of the run; trigger the DAG again, and it takes over."
UNDO_DAG, FAILED = "undo_migration", "failed"
UNDO_UNREPORTED = (
    "The undo ended without a report: whether its rows are out, the next undo of that run will say."
)
UNDO_TIMED_OUT = (
    "The undo's time was up, and Airflow ended it: the live tables are as before or as after."
)
UNDO_AGAIN = (
    "trigger the DAG again with the same `run_id`: what is undone already is not undone twice."
)


@dataclass(frozen=True, slots=True)
class News:
    """What a notifier's templates find under `migration`. No value of the state is in it.

    `subject` is a line, `text` all of it as plain text, `html` the same for a mail, escaped. Of an undo
    `verdict` is its outcome.
    """

    dag_id: str
    run_id: str
    succeeded: bool
    verdict: str
    sentence: str
    next_steps: tuple[str, ...]
    link: str

    @property
    def subject(self) -> str:
        return f"{self.dag_id}: {'succeeded' if self.succeeded else 'failed'}, {self.verdict}"

    def for_templates(self) -> dict[str, Any]:
        steps = [f"- {step}" for step in self.next_steps]
        word = "undo" if self.dag_id == UNDO_DAG else "verdict"
        lines = [self.sentence, f"{word}: {self.verdict}", *steps]
        escaped = "<br>\n".join(map(html.escape, lines))
        link = html.escape(self.link)
        return {
            **asdict(self),
            "subject": self.subject,
            "text": "\n".join([*lines, self.link] if self.link else lines),
            "html": f'<p>{escaped}</p>\n<p><a href="{link}">{link}</a></p>',
        }


def tell(report: engine.Report) -> None:
    """Tell of a run by its report."""
    context: Any = get_current_context()
    _tell(_news(report, context), context)


def tell_of_no_report(context: Any) -> None:
    """The callback of a `report` that failed: with its report, if no folder took it, else without."""
    report = getattr(context.get("exception"), "facts", {}).get("report")
    if report is not None:
        _tell(_news(report, context), context)
    else:
        _tell(_without_report(UNREPORTED, context), context)


def tell_of_undo(report: engine.UndoReport) -> None:
    """Tell what an undo came to."""
    context: Any = get_current_context()
    _tell(_of_undo(context, report.outcome, report.sentence, ()), context)


def tell_of_failed_undo(context: Any) -> None:
    """The callback of an `undo` that failed: with its error, if it is one of ours."""
    error = context.get("exception")
    if isinstance(error, engine.MigrationError):
        told = _of_undo(
            context, FAILED, f"The undo failed: {error.what} {error.safe}", (error.next,)
        )
    else:
        told = _of_undo(context, FAILED, UNDO_UNREPORTED, (UNDO_AGAIN,))
    _tell(told, context)


def tell_of_timeout(context: Any) -> None:
    """The callback of a failed run: of all but a run whose time was up, its last task has told."""
    if context.get("reason") != "timed_out":
        return
    if context["dag"].dag_id == UNDO_DAG:
        _tell(_of_undo(context, FAILED, UNDO_TIMED_OUT, (UNDO_AGAIN,)), context)
    else:
        _tell(_without_report(TIMED_OUT, context), context)


def warn_of_missing() -> None:
    """Say early which notifiers cannot be imported: else it would come up when they are needed."""
    for setting in read_deployment().notifiers:
        try:
            pkgutil.resolve_name(setting.path)
        except Exception as error:  # noqa: BLE001 - a module may raise anything when it is imported
            say(logging.WARNING, f"{setting.path} will tell nobody: {engine.told_of(error)}")


def _news(report: engine.Report, context: Any) -> News:
    return News(
        dag_id=report.dag_id,
        run_id=report.run_id,
        succeeded=report.succeeded,
        verdict=report.verdict.value,
        sentence=report.sentence,
        next_steps=tuple(report.next_steps),
        link=_link(context),
    )


def _without_report(sentence: str, context: Any) -> News:
    return News(
        dag_id=context["dag"].dag_id,
        run_id=context["run_id"],
        succeeded=False,
        verdict=engine.Verdict.UNPROVEN.value,
        sentence=sentence,
        next_steps=(LOOK,),
        link=_link(context),
    )


def _of_undo(context: Any, outcome: str, sentence: str, next_steps: tuple[str, ...]) -> News:
    return News(
        dag_id=UNDO_DAG,
        run_id=context["run_id"],
        succeeded=outcome != FAILED,
        verdict=outcome,
        sentence=sentence,
        next_steps=next_steps,
        link=_link(context),
    )


def _link(context: Any) -> str:
    """The run's page in Airflow; nothing where only the run's id is known."""
    instance = context.get("ti")
    return instance.log_url.rpartition("/tasks/")[0] if instance is not None else ""


def _tell(news: News, context: Mapping[str, Any]) -> None:
    for setting in _wanted(news):
        try:
            _within_time(setting, {**context, "migration": news.for_templates()})
        except Exception as error:  # noqa: BLE001 - whatever a notifier raises, the run has ended as it did
            # its type and place alone: its message may hold the address that it was to call
            say(logging.WARNING, f"{setting.path} told nobody: {engine.told_of(error)}")


def _wanted(news: News) -> Iterator[NotifierSetting]:
    for setting in read_deployment().notifiers:
        if setting.on == "verdict" or not news.succeeded:
            yield setting


def _within_time(setting: NotifierSetting, context: Mapping[str, Any]) -> None:
    raised: list[BaseException] = []

    def notify() -> None:
        try:
            notifier = pkgutil.resolve_name(setting.path)(**setting.kwargs)
            # not by calling it: BaseNotifier logs the error's message, with the address in it
            notifier.render_template_fields(context)
            notifier.notify(context)
        except BaseException as error:  # noqa: BLE001 - handed on to the thread that waits
            raised.append(error)

    thread = threading.Thread(target=notify, daemon=True, name=setting.path)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]
