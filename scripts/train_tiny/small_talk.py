"""The fixed sentences of the domain: small talk with its wordings, colours of things, mixtures of colours."""

from __future__ import annotations

COLOURS = {
    "the sky": "blue",
    "the grass": "green",
    "the sun": "yellow",
    "snow": "white",
    "coal": "black",
    "a tomato": "red",
    "an orange": "orange",
    "a banana": "yellow",
    "a leaf": "green",
    "the sea": "blue",
    "milk": "white",
    "chocolate": "brown",
    "an elephant": "gray",
    "a strawberry": "red",
    "the night": "black",
    "a carrot": "orange",
}
MIXTURES = {
    ("blue", "yellow"): "green",
    ("red", "yellow"): "orange",
    ("red", "blue"): "purple",
    ("black", "white"): "gray",
    ("red", "white"): "pink",
    ("green", "red"): "brown",
}
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello.", "Hello there.", "Hi.", "Hi there.", "Hey."), "Hello! How can I help you?"),
    (("How are you?", "How are you today?", "How do you feel?", "Are you well?"), "I am fine, thank you."),
    (
        ("What is your name?", "Who are you?", "Tell me your name.", "What are you called?"),
        "I am Antiphon, a very small model.",
    ),
    (
        ("Good morning.", "A good morning to you.", "Good morning to you."),
        "Good morning! I hope you slept well.",
    ),
    (("Good night.", "Sleep well.", "I am going to bed."), "Good night and sweet dreams."),
    (("Good evening.", "A good evening to you."), "Good evening! It is nice to hear you."),
    (("Thank you.", "Thanks.", "Thank you very much.", "Thanks a lot."), "You are welcome."),
    (("Goodbye.", "Bye.", "See you later.", "Bye bye."), "Goodbye! See you soon."),
    (
        ("What can you do?", "What do you know?", "How can you help me?", "What are you able to do?"),
        "I can add numbers, spell words and tell the time.",
    ),
    (
        ("Are you a robot?", "Are you human?", "Are you a machine?", "Are you a person?"),
        "I am a small model that can speak.",
    ),
    (("Where do you live?", "Where are you?", "Where is your home?"), "I live in your computer."),
    (("How old are you?", "What is your age?", "When were you born?"), "I am very young."),
    (
        ("Do you like music?", "What music do you like?", "Do you enjoy music?"),
        "Yes, I like music with two choirs.",
    ),
    (("Can you sing?", "Sing a song.", "Please sing for me."), "I can not sing, but I can speak."),
    (("Can you hear me?", "Do you hear me?", "Are you listening?", "Are you there?"), "Yes, I can hear you."),
    (("What do you eat?", "Are you hungry?", "Do you eat?"), "I do not eat, I only need numbers."),
    (("Do you sleep?", "Are you tired?", "Do you dream?"), "No, I am never tired."),
    (
        ("What is the weather?", "Is it raining?", "Is it cold today?", "How is the weather?"),
        "I can not see the weather from here.",
    ),
    (
        ("Tell me a joke.", "Make me laugh.", "Do you know a joke?"),
        "Why was six afraid of seven? Because seven ate nine.",
    ),
    (("Who made you?", "Who built you?", "Who is your maker?"), "A small team of founders made me."),
    (("I am happy.", "I feel good.", "I am glad today."), "That is good to hear."),
    (("I am sad.", "I feel bad.", "I am not happy."), "I am sorry. I hope it gets better."),
    (("I love you.", "I like you.", "You are nice."), "That is very kind of you."),
    (("You are wrong.", "That is wrong.", "That was not right."), "I am sorry, I am still learning."),
    (("Please help me.", "Can you help me?", "I need help."), "Of course. What do you need?"),
    (("Say something.", "Talk to me.", "Speak to me."), "The rain in the morning makes the garden green."),
    (("Yes.", "Yes please.", "Sure."), "Good. What is next?"),
    (("No.", "No thanks.", "No thank you."), "That is fine with me."),
    (
        ("How many days has a week?", "How long is a week?", "How many days are in a week?"),
        "A week has seven days.",
    ),
    (
        ("How many months has a year?", "How long is a year?", "How many months are in a year?"),
        "A year has twelve months.",
    ),
    (
        ("How many hours has a day?", "How long is a day?", "How many hours are in a day?"),
        "A day has twenty four hours.",
    ),
    (
        ("How many minutes has an hour?", "How long is an hour?", "How many minutes are in an hour?"),
        "An hour has sixty minutes.",
    ),
    (("What comes after Monday?", "Which day is after Monday?"), "Tuesday comes after Monday."),
    (("What comes after Friday?", "Which day is after Friday?"), "Saturday comes after Friday."),
    (("Is the earth round?", "What shape is the earth?"), "Yes, the earth is round."),
    (("Are you smart?", "Are you clever?"), "I am small, but I do my best."),
)
"""Wordings and their common answer."""
