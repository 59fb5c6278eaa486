"""The named colours of the embedded world, as hex without the hash."""

BACKGROUNDS = {
    "white": "fafafa",
    "blue": "8ecae6",
    "pink": "ffb3c6",
    "purple": "b39ddb",
    "gray": "4a5568",
    "yellow": "ffe066",
    "green": "95d5b2",
    "orange": "f4a259",
}
HAIR_COLOURS = {
    "black": "1c1c1c",
    "brown": "6a4030",
    "blonde": "e8c767",
    "red": "c8321e",
    "blue": "3f74d1",
    "green": "36a336",
    "purple": "8438a8",
    "white": "ececec",
}
THING_COLOURS = {
    "red": "f87171",
    "orange": "fdba74",
    "yellow": "fcd34d",
    "green": "6ee7b9",
    "blue": "7dd3fc",
    "purple": "c4b5fd",
}
SHIRT_COLOURS = {
    "red": "d84b4b",
    "blue": "3f63c8",
    "green": "3f9a5a",
    "yellow": "f2c230",
    "black": "3a3a3a",
    "white": "f4f4f4",
    "purple": "8a5cc2",
}
SKINS = ("f2d3b1", "d9a26b", "9e5622", "5c3414")
