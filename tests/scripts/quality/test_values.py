"""Cells and gates."""

from __future__ import annotations

from antiphon.scripts.quality.values import (
    CURSOR_HIGH,
    ENDLESS,
    GIVEN,
    OWN,
    RESYNTHESIS,
    SYNTHESISER,
    TYPED,
    WER,
    Found,
    Value,
)

WHISPER = WER.format("Whisper tiny")


def met(found: Found) -> dict[str, bool | None]:
    return {gate.name: gate.met for gate in found.gates("Whisper tiny")}


def test_error_rates_are_gated_against_the_synthesisers() -> None:
    found = Found()
    found.add(WHISPER, SYNTHESISER, 0.035, "%")
    found.add(WHISPER, RESYNTHESIS, 0.085, "%")
    found.add(WHISPER, GIVEN, 0.14, "%")
    gates = met(found)
    assert gates["(a) resynthesis: word error rate above the synthesiser's"] is True
    assert gates["(b) given text: word error rate above the synthesiser's"] is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert set(met(Found()).values()) == {None}


def test_limits_are_inclusive() -> None:
    found = Found(
        [
            Value(TYPED, OWN, 0.9, "%"),
            Value(ENDLESS, OWN, 0, "runs"),
            Value(CURSOR_HIGH, SYNTHESISER, 2.0, "words"),
        ]
    )
    assert sum(gate is True for gate in met(found).values()) == 3


def test_values_are_shown_with_their_unit() -> None:
    assert [
        Value("", "", value, unit).shown
        for value, unit in ((0.1234, "%"), (2, "runs"), (0.5, "s"), (3.14159, ""), (None, "%"))
    ] == [
        "12.3 %",
        "2 runs",
        "0.50 s",
        "3.14",
        "-",
    ]
