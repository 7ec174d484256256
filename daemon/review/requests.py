"""Daemon: `request/feedback`: what the owner says about announcements, and what follows from it.

Runs in the pipeline's thread, and uses the disk in another one. What is said is kept first; then
the readings of the exposure are proposed to the library of taught smells. Nothing is announced
because of feedback until the owner accepts a proposal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from calibration.smell_set import NEGATIVES, SmellError
from daemon.mqtt.payloads import format_utc
from daemon.request_fields import (
    Action,
    Actions,
    RequestError,
    choice,
    flag,
    number,
    text,
    whole_numbers,
)
from daemon.review.announcements import AnnouncementLog
from daemon.review.clips import Clips, clip_name
from daemon.review.judgements import FeedbackVerdict, Judgement, Judgements, judge
from daemon.review.proposals import Proposal, ProposalKind, Proposals
from daemon.review.readings import label_exposure, stretch_from_history, stretch_from_recordings
from daemon.system.background import Short, at_once, in_thread
from hardware.errors import ScentdError
from hardware.labels import MAX_LABEL_LENGTH
from hardware.recording import read_recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from daemon.board.history import History
    from daemon.config.settings import RecordingConfig
    from daemon.enroll import Enrolment
    from daemon.mqtt.payloads import Envelope
    from daemon.review.announcements import Announcement
    from daemon.review.readings import Stretch
    from daemon.system.background import Data, OnDisk, Steps
    from hardware.recording import Recording
    from models.results import Event

FEEDBACK = "feedback"
"""Name of the request."""

FOLDER = "feedback"
"""Folder of what is kept, below the state folder."""

NOTE_LENGTH = 500
AT_ONCE = 50
"""Announcements of one request: a page of them is judged together."""

LABELLED_AT_ONCE = 4
"""Recordings that are labelled as the work of a moment; more are long work."""

LISTED = 50
MOST_LISTED = 200

SEVERAL = (" + ", " or ")
"""What the label of an announced mixture holds between its components (`models.reporter`)."""

_HIGHEST = 1 << 53
"""The largest whole number that every reader of JSON keeps."""


@dataclass(slots=True)
class _Case:
    """One announcement that is judged, with what is known of its readings."""

    judgement: Judgement
    announcement: Announcement
    clip: Path | None = None
    stretch: Stretch | None = None

    @property
    def kind(self) -> ProposalKind | None:
        """What the readings can be proposed as."""
        return _proposed_as(self.judgement)

    @property
    def needs_recordings(self) -> bool:
        """Whether the readings can only come from recordings, and may be there."""
        recorded = self.announcement.segment is not None or self.clip is not None
        return self.kind is not None and self.stretch is None and recorded


class Review:
    """The announcements of a rig, what the owner said about them, and the proposals from that.

    Parameters
    ----------
    state_dir, recordings_dir: of the rig.
    history: the last minutes of readings.
    enrolment: returns what teaches smells at present.
    on_feedback: called with every judgement, to publish it.
    boot_id: returns that of this process.
    write: as of `AnnouncementLog`.
    on_disk: calls what else uses the disk.

    Attributes
    ----------
    announcements: to which the service adds what it publishes.
    handle: the actions of `request/feedback`.
    """

    def __init__(
        self,
        state_dir: Path,
        recordings_dir: Path,
        history: History,
        enrolment: Callable[[], Enrolment],
        *,
        on_feedback: Callable[[Judgement, Announcement], None],
        boot_id: Callable[[], str],
        write: Callable[[Callable[[], None]], object] = lambda task: task(),
        on_disk: OnDisk = at_once,
    ) -> None:
        self._on_disk = on_disk
        folder = state_dir / FOLDER
        self.announcements = AnnouncementLog(folder, write)
        self._judgements = Judgements(folder)
        self._proposals = Proposals(folder)
        self._clips = Clips(recordings_dir, write)
        self._recordings_dir = recordings_dir
        self._history = history
        self._enrolment = enrolment
        self._on_feedback = on_feedback
        self._boot_id = boot_id
        label = text(None, most=MAX_LABEL_LENGTH)
        self.handle = Actions(
            "give",
            give=Action(
                self._give,
                ("seq", "ts"),
                seq=whole_numbers(0, _HIGHEST, AT_ONCE, None),
                ts=text(None, most=40),
                boot_id=text(None, most=16),
                verdict=choice(*FeedbackVerdict),
                label=label,
                note=text(None, most=NOTE_LENGTH),
            ),
            list=Action(
                self._list, last=number(1, MOST_LISTED, LISTED), before=text(None, most=40)
            ),
            score=Action(lambda: {"score": self.score()}),
            accept=Action(self._accept, id=text(most=32), label=label, promote=flag(default=False)),
            dismiss=Action(self._dismiss, id=text(most=32)),
        )

    def load(self) -> None:
        """Read what earlier processes kept."""
        self.announcements.load()
        self._judgements.load()

    def configure(self, config: RecordingConfig, *, clips: bool) -> None:
        """Keep clips within these bounds from now on, or no more of them."""
        self._clips.configure(config, wanted=clips)

    def add_event(self, event: Event, segment: str | None, envelope: Envelope) -> None:
        """Add an event that was published; the end of an announced exposure makes a clip."""
        first = self.announcements.add(event, segment, envelope)
        if first is None or not self._clips.wanted:
            return
        stretch = stretch_from_history(first, self._history, least_lead_ms=0)
        if stretch is not None:
            self._clips.keep(clip_name(first), stretch.content)

    def _find_clips(self, announcements: Sequence[Announcement]) -> Callable[[], list[Path | None]]:
        """Return what finds on disk the clips of the announcements' exposures, None for none."""
        names = [clip_name(self.announcements.first_of_exposure(one)) for one in announcements]
        return lambda: [self._clips.path(name) for name in names]

    def score(self) -> Data:
        """Return how often the rig's announcements were right, by day."""
        return self._judgements.score(self.announcements)

    def _give(
        self,
        *,
        seq: tuple[int, ...] | None,
        ts: str | None,
        boot_id: str | None,
        verdict: str,
        label: str | None,
        note: str | None,
    ) -> Short | Steps:
        """Keep a verdict on one announcement or several, then propose their readings."""
        boot_id = boot_id or self._boot_id()
        if seq is not None:
            found = [self._by_seq(boot_id, one) for one in seq]
        else:
            found = [self._newest() if ts is None else self._by_time(_unix_ms(ts))]
        chosen = {item.key: item for item in found}.values()
        cases = [_Case(judge(item, verdict, label, note), item) for item in chosen]
        for case in cases:
            if case.kind is not None:
                case.stretch = self._from_history(case.announcement)
        short = len(cases) <= LABELLED_AT_ONCE and not any(case.needs_recordings for case in cases)
        return Short(self._keep_all(cases)) if short else self._keep_all(cases)

    def _keep_all(self, cases: Sequence[_Case]) -> Steps:
        """Keep the judgements, then propose the readings that they are about."""
        for case in cases:
            yield from self._on_disk(self._judgements.write, case.judgement, doing="keeping")
            self._judgements.keep(case.judgement)
            self._on_feedback(case.judgement, case.announcement)
        find = self._find_clips([case.announcement for case in cases])
        clips = yield from self._on_disk(find, doing="looking for clips")
        for case, clip in zip(cases, clips, strict=True):
            case.clip = clip
        why = yield from self._on_disk(self._label_recordings, cases, doing="labelling recordings")
        for case in cases:
            if not case.needs_recordings:
                continue
            try:
                case.stretch = yield from in_thread(
                    stretch_from_recordings,
                    case.announcement,
                    self._recordings_dir,
                    case.clip,
                    doing="reading recordings",
                )
            except (ScentdError, OSError) as error:
                why.append(str(error))
        proposals = yield from self._on_disk(self._propose_all, cases, why, doing="proposing")
        return {
            "feedback": [case.judgement.data() for case in cases],
            "proposals": proposals,
            "why": list(dict.fromkeys(why)),
            "score": self.score(),
        }

    def _label_recordings(self, cases: Sequence[_Case]) -> list[str]:
        """Label the recorded exposures whose true name is known; return what went wrong."""
        problems = []
        for case in cases:
            if case.kind is ProposalKind.EXPOSURE:
                truth = str(case.judgement.truth)
                try:
                    label_exposure(case.announcement, truth, self._recordings_dir, case.clip)
                except (ScentdError, OSError) as error:
                    problems.append(str(error))
        return problems

    def _propose_all(self, cases: Sequence[_Case], why: list[str]) -> list[Data]:
        """Keep a proposal of every case on disk; return them, and add to `why` what cannot be."""
        proposals = []
        for case in cases:
            judgement, kind, stretch = case.judgement, case.kind, case.stretch
            # What was proposed before about this announcement does not hold any more.
            self._proposals.remove(_proposal_id(judgement))
            if kind is None:
                continue
            if stretch is None:
                why.append(
                    f"No readings of the exposure of {judgement.day} are kept any more, with the "
                    "clean air before it. Record the rig (record: true, or clips: true) to keep "
                    "them."
                )
                continue
            negative = kind is ProposalKind.NEGATIVE
            proposal = Proposal(
                id=_proposal_id(judgement),
                kind=kind,
                label=str(judgement.announced if negative else judgement.truth),
                session=judgement.day,
                start_ms=stretch.start_ms,
                seconds=round(stretch.seconds, 1),
                given_ms=judgement.given_ms,
            )
            self._proposals.add(proposal, stretch.content)
            proposals.append(proposal.data())
        return proposals

    def _from_history(self, announcement: Announcement) -> Stretch | None:
        if announcement.boot_id != self._boot_id() or announcement.run != self.announcements.run:
            return None
        stretch = stretch_from_history(announcement, self._history)
        if stretch is None and announcement.segment is None:
            # Less clean air than is wanted is better than none.
            return stretch_from_history(announcement, self._history, least_lead_ms=0)
        return stretch

    def _list(self, *, last: float, before: str | None) -> Short:
        """Return the newest announcements with what was said about them, proposals and score."""
        before_ms = None if before is None else _unix_ms(before)
        items = [
            item
            for item in self.announcements.newest_first()
            if before_ms is None or item.unix_ms < before_ms
        ][: int(last)]
        find = self._find_clips(items)

        def steps() -> Steps:
            clips, proposals = yield from self._on_disk(
                lambda: (find(), self._proposals.list()), doing="listing"
            )
            return {
                "announcements": [
                    self._described(item, clip) for item, clip in zip(items, clips, strict=True)
                ],
                "proposals": [item.data() for item in proposals],
                "score": self.score(),
            }

        return Short(steps())

    def _described(self, item: Announcement, clip: Path | None) -> Data:
        judgement = self._judgements.of(item)
        return {
            "boot_id": item.boot_id,
            "seq": item.seq,
            "ts": format_utc(item.unix_ms),
            "type": item.type,
            "t_ms": item.t_ms,
            "onset_ms": item.onset_ms,
            "ended_ms": item.ended_ms,
            "segment": item.segment,
            "clip": None if clip is None else clip.name,
            "model": item.model,
            "label": item.label,
            "probability": item.probability,
            "detail": item.detail,
            "feedback": None if judgement is None else judgement.data(),
        }

    def _accept(self, *, id: str, label: str | None, promote: bool) -> Steps:  # noqa: A002 - the field's name
        """Teach a proposal, under its label or another one, then forget the proposal."""
        enrolment = self._enrolment()

        def checked() -> tuple[Proposal, Recording, str]:
            proposal = self._proposals.get(id)
            negative = proposal.kind == ProposalKind.NEGATIVE
            if negative and label == proposal.label:
                raise RequestError(
                    f"This exposure is not {proposal.label}. Accept it under its own name, without "
                    "a label as none of the taught smells, or dismiss it."
                )
            name = label or (NEGATIVES if negative else proposal.label)
            sure = promote or name == NEGATIVES  # to accept it is the owner's word
            if label is None and enrolment.is_announced(name) and not sure:
                raise SmellError(
                    f"{name} is announced already, so this exposure would count at once. Accept it "
                    "with promote: true, or under another label, which is taught in shadow."
                )
            return proposal, read_recording(self._proposals.readings_path(proposal.id)), name

        proposal, recording, name = yield from self._on_disk(checked, doing="reading the proposal")
        answer = yield from enrolment.teach(
            name,
            recording,
            source="feedback",
            session=proposal.session,
            start_ms=proposal.start_ms,
            promote=promote or name == NEGATIVES,
        )
        yield from self._on_disk(self._proposals.remove, proposal.id, doing="removing the proposal")
        return answer

    def _dismiss(self, *, id: str) -> Short:  # noqa: A002 - the field's name
        def dismissed() -> Data:
            self._proposals.get(id)
            self._proposals.remove(id)
            return {"proposals": [item.data() for item in self._proposals.list()]}

        return Short(self._on_disk(dismissed, doing="dismissing"))

    def _newest(self) -> Announcement:
        found = next(self.announcements.newest_first(), None)
        if found is None:
            raise RequestError("Nothing was announced yet, so there is nothing to judge.")
        return found

    def _by_seq(self, boot_id: str, seq: int) -> Announcement:
        """Return the announcement that holds at a message: the latest not after it."""
        for item in self.announcements.newest_first():
            if item.boot_id == boot_id and item.seq <= seq:
                if item.seq == seq or item.ended_seq is None or seq <= item.ended_seq:
                    return item
                break
        raise RequestError(
            f"Nothing was announced at message {seq} of boot {boot_id}. Name the seq of an event "
            "recognised, unrecognised or listed, or of a prediction while it lasts; "
            '{"action": "list"} returns them.'
        )

    def _by_time(self, unix_ms: int) -> Announcement:
        """Return the latest announcement that is not after a time."""
        for item in self.announcements.newest_first():
            if item.unix_ms <= unix_ms:
                return item
        raise RequestError(
            f"Nothing was announced before {format_utc(unix_ms)}, as far as is known. "
            '{"action": "list"} returns the announcements.'
        )


def _proposed_as(judgement: Judgement) -> ProposalKind | None:
    """Return what the readings can be proposed as; None where nothing is known about them."""
    if judgement.label is not None:
        return ProposalKind.EXPOSURE
    announced = judgement.announced
    if announced is None or any(word in announced for word in SEVERAL):
        return None  # a smell is taught by itself, not in a mixture
    return (
        ProposalKind.EXPOSURE
        if judgement.verdict == FeedbackVerdict.RIGHT
        else ProposalKind.NEGATIVE
    )


def _proposal_id(judgement: Judgement) -> str:
    return f"{judgement.boot_id[:8]}-{judgement.seq}"


def _unix_ms(moment: str) -> int:
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise RequestError(
            f"{moment!r} is no time. Write it as messages do: 2026-01-31T12:00:00.250Z."
        )
    return round(found.timestamp() * 1000.0)
