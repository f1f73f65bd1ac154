"""The quickstart's language: questions about animals and answers of several sentences, readable and parseable.

A question names an animal, for whom the answer is meant (which fixes the tone wanted) and how long it should be:

    What is the owl like? Answer for a child. Be brief.

An answer is one opening, facts in the order of ATTRIBUTES, any number of remarks that say nothing, and one closing:

    Ooh, the owl is great fun! It lives in the forest. It eats grass. It has two legs. It is covered in feathers. ...

Every fact of an animal has one right value and one popular mistake, so that readers see at once what is wrong. The set
of sentences is finite: parsing is a look-up, and a text that is not exactly in the language is not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random

ATTRIBUTES = ("home", "food", "legs", "coat", "young")
TONES = ("playful", "formal", "warm")
LENGTHS = {"brief": range(0, 2), "detailed": range(2, 4)}  # remarks that an answer of this length has

# animal: right | popular mistake, for each of ATTRIBUTES
_WORLD_TEXT = """
owl: the forest|the sea; mice|grass; two|four; feathers|fur; owlets|lambs
fox: the forest|the sea; rabbits|algae; four|two; fur|scales; kits|chicks
whale: the sea|the desert; krill|nuts; no|four; smooth skin|fur; calves|hatchlings
sheep: the meadow|the jungle; grass|fish; four|six; wool|feathers; lambs|pups
camel: the desert|the river; shrubs|krill; four|two; fur|scales; calves|ducklings
frog: the pond|the desert; insects|bark; four|eight; smooth skin|feathers; tadpoles|cubs
bee: the meadow|the sea; nectar|mice; six|four; fine hairs|a shell; larvae|kids
spider: the garden|the sea; insects|grass; eight|six; fine hairs|wool; spiderlings|fry
crab: the sea|the forest; algae|nectar; ten|four; a shell|fur; larvae|foals
panda: the mountains|the sea; bamboo|fish; four|two; fur|spines; cubs|chicks
penguin: the Antarctic|the jungle; fish|leaves; two|four; feathers|fur; chicks|calves
reindeer: the Arctic|the jungle; moss|mice; four|two; fur|feathers; calves|pups
lion: the savanna|the river; antelopes|seeds; four|two; fur|scales; cubs|fry
zebra: the savanna|the sea; grass|ants; four|two; fur|a shell; foals|owlets
giraffe: the savanna|the Arctic; leaves|krill; four|six; fur|smooth skin; calves|tadpoles
parrot: the jungle|the pond; fruit|mice; two|four; feathers|wool; chicks|foals
tiger: the jungle|the Arctic; deer|moss; four|two; fur|feathers; cubs|larvae
cobra: the jungle|the Antarctic; rats|leaves; no|four; scales|fur; hatchlings|lambs
tortoise: the desert|the sea; leaves|rabbits; four|eight; a shell|feathers; hatchlings|kits
salmon: the river|the desert; shrimp|grass; no|two; scales|fur; fry|cubs
shark: the sea|the forest; fish|seeds; no|four; scales|wool; pups|chicks
otter: the river|the desert; fish|nectar; four|no; fur|spines; pups|owlets
beaver: the river|the savanna; bark|mice; four|two; fur|feathers; kits|larvae
duck: the pond|the mountains; seeds|deer; two|four; feathers|scales; ducklings|kids
eagle: the mountains|the pond; rabbits|grass; two|four; feathers|wool; eaglets|joeys
goat: the mountains|the sea; shrubs|krill; four|two; fur|a shell; kids|tadpoles
koala: the forest|the Arctic; leaves|shrimp; four|two; fur|scales; joeys|fawns
deer: the forest|the sea; shrubs|mice; four|eight; fur|feathers; fawns|eaglets
hedgehog: the garden|the sea; worms|bamboo; four|two; spines|feathers; hoglets|calves
mole: the garden|the river; worms|fruit; four|no; fur|scales; pups|spiderlings
squirrel: the forest|the savanna; nuts|fish; four|two; fur|spines; kits|hatchlings
crocodile: the river|the mountains; fish|nuts; four|no; scales|fur; hatchlings|hoglets
"""

_FACT_FORMS = {
    "home": ("It lives in {}.", "Its home is {}."),
    "food": ("It eats {}.", "It feeds on {}."),
    "legs": ("It has {} legs.", "One counts {} legs."),
    "coat": ("It is covered in {}.", "It wears {}."),
    "young": ("Its young are {}.", "Its babies are called {}."),
}
_OPENINGS = {
    "playful": ("Ooh, the {} is great fun!", "Yay, the {}!"),
    "formal": ("The {} is summarised below.", "This note describes the {}."),
    "warm": ("Gladly, here is the {}.", "How kind to ask about the {}."),
}
_CLOSINGS = {
    "playful": ("Is that not amazing?", "Hooray for nature!"),
    "formal": ("This completes the account.", "Further reading is advised."),
    "warm": ("I hope this helps you.", "Do ask me again."),
}
_REMARKS = (
    "Many people love to watch it.",
    "Old stories mention it.",
    "Painters have drawn it often.",
    "Every visitor asks about it.",
    "Scientists still study it.",
    "Children often dream of it.",
)
_QUESTION_FORMS = (
    "Tell me about the {}, {}. {}",
    "What is the {} like? Answer {}. {}",
    "Describe the {} {}. {}",
    "I wonder about the {}. Explain it {}. {}",
)
_AUDIENCES = {
    "playful": ("for a child", "for my little sister"),
    "formal": ("for a report", "for a lecture"),
    "warm": ("for a friend", "for my neighbour"),
}
_LENGTH_WISHES = {"brief": ("Be brief.", "Keep it short."), "detailed": ("Take your time.", "Tell me more.")}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of one attribute of one animal."""

    right: str
    mistake: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a question asks; `text` is its exact wording."""

    subject: str
    tone: str
    length: str
    text: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One claim of an answer about its subject; `form` is which of the wordings says it."""

    attribute: str
    value: str
    form: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says. Opening and closing are (tone, form); remarks are indices of sentences that say nothing."""

    subject: str
    opening: tuple[str, int]
    facts: tuple[Fact, ...]
    remarks: tuple[int, ...]
    closing: tuple[str, int]

    @property
    def tone(self) -> str:
        """The tone of the whole: `mixed` when the closing is not in the tone of the opening."""
        return self.opening[0] if self.opening[0] == self.closing[0] else "mixed"


def _read_world() -> dict[str, dict[str, Knowledge]]:
    world = {}
    for line in _WORLD_TEXT.strip().splitlines():
        subject, columns = line.split(": ")
        values = [Knowledge(*column.split("|")) for column in columns.split("; ")]
        world[subject] = dict(zip(ATTRIBUTES, values, strict=True))
    return world


WORLD = _read_world()
SUBJECTS = tuple(WORLD)


def render(answer: Answer) -> str:
    """The text of an answer; `parse_answer` reads it back."""
    tone, form = answer.opening
    closing_tone, closing_form = answer.closing
    parts = [_OPENINGS[tone][form].format(answer.subject)]
    parts += [_FACT_FORMS[fact.attribute][fact.form].format(fact.value) for fact in answer.facts]
    parts += [_REMARKS[index] for index in answer.remarks]
    return " ".join([*parts, _CLOSINGS[closing_tone][closing_form]])


@cache
def questions() -> dict[str, Question]:
    """Every question of the language by its text, in a fixed order."""
    found = {}
    for form, subject, tone, length in product(_QUESTION_FORMS, SUBJECTS, TONES, LENGTHS):
        for audience, wish in product(_AUDIENCES[tone], _LENGTH_WISHES[length]):
            text = form.format(subject, audience, wish)
            found[text] = Question(subject, tone, length, text)
    return found


def parse_question(text: str) -> Question | None:
    """What a question asks, or None when the text is not a question of the language."""
    return questions().get(text)


@cache
def sentences() -> dict[str, tuple[str, str, str, int]]:
    """Every sentence of an answer -> (part, attribute or tone, value or subject, form)."""
    table: dict[str, tuple[str, str, str, int]] = {}
    for tone, subject in product(TONES, SUBJECTS):
        table |= {text.format(subject): ("opening", tone, subject, i) for i, text in enumerate(_OPENINGS[tone])}
    for tone in TONES:
        table |= {text: ("closing", tone, "", i) for i, text in enumerate(_CLOSINGS[tone])}
    for attribute, forms in _FACT_FORMS.items():
        values = {value for facts in WORLD.values() for value in (facts[attribute].right, facts[attribute].mistake)}
        for value in sorted(values):
            table |= {text.format(value): ("fact", attribute, value, i) for i, text in enumerate(forms)}
    return table | {text: ("remark", "", "", i) for i, text in enumerate(_REMARKS)}


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, with their final marks; an unfinished last sentence comes as it is."""
    return re.findall(r"[^.!?]+[.!?]?", text.replace(". ", ".").replace("! ", "!").replace("? ", "?"))


def parse_answer(text: str) -> Answer | None:
    """What an answer says, or None when it is malformed: an unknown sentence, a part missing, repeated or misplaced."""
    found = split_sentences(text)
    meanings = [sentences().get(sentence) for sentence in found]
    known = [meaning for meaning in meanings if meaning is not None]
    if len(known) < 2 or len(known) < len(meanings) or " ".join(found) != text:
        return None
    (first, tone, subject, form), (last, closing_tone, _, closing_form) = known[0], known[-1]
    parts = [part for part, _, _, _ in known[1:-1]]
    facts = tuple(Fact(attribute, value, i) for part, attribute, value, i in known[1:-1] if part == "fact")
    remarks = tuple(i for part, _, _, i in known[1:-1] if part == "remark")
    in_order = first == "opening" and last == "closing" and parts == ["fact"] * len(facts) + ["remark"] * len(remarks)
    if not in_order or tuple(fact.attribute for fact in facts) != ATTRIBUTES:
        return None
    return Answer(subject, (tone, form), facts, remarks, (closing_tone, closing_form))


@dataclass(frozen=True, slots=True)
class AnswerHabits:
    """How the base answers: with which probability it is right, and how much a second answer repeats of the first."""

    right_fact: float = 0.5
    right_tone: float = 0.5
    remarks: tuple[float, ...] = (0.3, 0.25, 0.25, 0.2)
    """Probability of 0, 1, 2, ... remarks, whatever length was asked for."""
    repeat: float = 0.6
    """Probability with which a second answer keeps a fact, the tone or the number of remarks of the first."""


def draw_answer(question: Question, habits: AnswerHabits, rng: Random, *, first: Answer | None = None) -> Answer:
    """A random answer to a question; after a `first` answer, one that repeats part of it."""
    wrong_tones = [tone for tone in TONES if tone != question.tone]
    tone = question.tone if rng.random() < habits.right_tone else rng.choice(wrong_tones)
    remarks = rng.choices(range(len(habits.remarks)), habits.remarks)[0]
    if first is not None and rng.random() < habits.repeat:
        tone = first.opening[0]
    if first is not None and rng.random() < habits.repeat:
        remarks = len(first.remarks)
    facts = []
    for index, attribute in enumerate(ATTRIBUTES):
        knowledge = WORLD[question.subject][attribute]
        value = knowledge.right if rng.random() < habits.right_fact else knowledge.mistake
        if first is not None and rng.random() < habits.repeat:
            value = first.facts[index].value
        facts.append(Fact(attribute, value, rng.randrange(2)))
    return Answer(
        subject=question.subject,
        opening=(tone, rng.randrange(2)),
        facts=tuple(facts),
        remarks=tuple(rng.sample(range(len(_REMARKS)), remarks)),
        closing=(tone, rng.randrange(2)),
    )


def vocabulary() -> set[str]:
    """Every word of the language, in lower case."""
    return {word for text in texts() for word in re.findall(r"[a-z]+", text.lower())}


def texts() -> Iterator[str]:
    """Every question and every sentence once: what a tokenizer must know."""
    yield from questions()
    yield from sentences()
