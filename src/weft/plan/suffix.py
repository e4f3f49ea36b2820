"""Suffix: decoders are causal, so an edit at position p changes nothing before p."""

from __future__ import annotations

from dataclasses import replace

from weft.plan.pieces import Piece, Plan


def suffix(plan: Plan) -> Plan:
    """Begin each edited row at its first edited position; the keys before it are its base's."""
    firsts = {fork.run: fork.first for fork in plan.forks}
    pieces = {
        number: piece
        if piece.run is None or piece.row not in plan.bases
        else _cut(plan, piece, firsts[piece.run][piece.at])
        for number, piece in plan.pieces.items()
    }
    return replace(plan, pieces=pieces)


def _cut(plan: Plan, piece: Piece, first: int) -> Piece:
    if first == 0:
        return piece
    before = next(n for n in reversed(plan.chain(plan.bases[piece.row])) if plan.pieces[n].first < first)
    return piece._replace(first=first, before=before)
