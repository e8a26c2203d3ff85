"""Leads: what a conversation looks like, what became of it, and the model that learns from each outcome."""

from models.leads.conversation import NAMES, Conversation, Message
from models.leads.learner import COEFFICIENTS, Learner, answer_of
from models.leads.outcome import outcome_of
from models.leads.voices import Said, Voices

__all__ = [
    "COEFFICIENTS",
    "NAMES",
    "Conversation",
    "Learner",
    "Message",
    "Said",
    "Voices",
    "answer_of",
    "outcome_of",
]
