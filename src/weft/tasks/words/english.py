"""English words by category, names, and what the stories are told with.

CATEGORIES["fruit"]                    # ("apple", "pear", …); each word is in one category only
CONCEPTS                               # all of them, in a fixed order
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATEGORIES: dict[str, tuple[str, ...]] = {
    "fruit": _words("apple pear plum cherry mango peach grape lemon melon banana orange fig lime kiwi"),
    "vegetable": _words(
        "carrot onion potato cabbage spinach turnip radish leek celery garlic pumpkin lettuce bean pea"
    ),
    "animal": _words("horse cow pig sheep goat lion tiger bear wolf fox rabbit mouse camel monkey"),
    "bird": _words("robin eagle owl crow swan goose duck parrot pigeon sparrow hawk raven stork gull"),
    "insect": _words("ant bee wasp moth beetle fly cricket flea termite mosquito hornet gnat locust ladybird"),
    "tool": _words("hammer saw drill wrench pliers chisel axe shovel rake file screwdriver ladder spade level"),
    "vehicle": _words("car bus truck train tram bicycle boat ship ferry van wagon taxi plane tractor"),
    "furniture": _words("chair table bed sofa desk shelf bench stool wardrobe cupboard drawer couch bookcase cradle"),
    "clothing": _words("shirt coat hat sock shoe glove scarf dress skirt jacket sweater belt boot apron"),
    "instrument": _words("piano guitar violin drum flute trumpet harp cello clarinet banjo organ oboe tuba bagpipe"),
    "flower": _words("rose tulip daisy lily orchid poppy violet iris daffodil sunflower lavender pansy peony jasmine"),
    "tree": _words("oak pine birch maple willow elm cedar beech spruce poplar larch chestnut palm alder"),
    "building": _words(
        "house church castle barn tower school hotel hospital library museum palace temple garage prison"
    ),
    "sport": _words(
        "tennis football golf rugby hockey boxing cycling rowing swimming wrestling fencing skiing judo archery"
    ),
    "metal": _words("iron gold silver copper tin lead zinc nickel steel bronze brass aluminium titanium platinum"),
    "weather": _words("rain snow wind storm fog hail thunder frost drizzle lightning sleet mist breeze blizzard"),
}
"""Category → its words."""

EXCLUDED: dict[str, frozenset[str]] = {
    "fruit": frozenset({"vegetable", "tree"}),  # a pumpkin is a fruit to some; fig, plum and cherry are trees too
    "vegetable": frozenset({"fruit"}),
    "tree": frozenset({"fruit"}),
    "animal": frozenset({"bird", "insect"}),
    "bird": frozenset({"animal"}),
    "insect": frozenset({"animal", "sport"}),  # cricket
    "sport": frozenset({"insect"}),
    "tool": frozenset({"furniture"}),
    "furniture": frozenset({"tool", "clothing"}),  # drawers
    "clothing": frozenset({"furniture"}),
}
"""Category → those it may not share a list with, because a word of one could be meant as the other's."""

RHYMES: dict[str, tuple[str, ...]] = {
    "night": _words("light sight fight right kite white bite might"),
    "day": _words("play way say clay stay tray gray pay"),
    "moon": _words("spoon noon tune soon dune June balloon prune"),
    "door": _words("floor more shore store four roar war core"),
    "snow": _words("go low toe grow flow row bow throw"),
    "hill": _words("bill mill fill pill will chill still spill"),
    "ring": _words("king sing thing wing bring spring string sting"),
    "tree": _words("see key knee tea free three sea bee"),
    "rock": _words("clock sock lock block knock shock dock stock"),
    "rain": _words("train brain cane lane main pain crane chain"),
}
"""A word → words that rhyme with it: a predicate about sound, which heads that filter by meaning do not carry."""

CONCEPTS: tuple[str, ...] = tuple(word for words in CATEGORIES.values() for word in words)

NAMES = _words("""
    Alice Bob Carol David Emma Frank Grace Henry Mary John Anna Peter Laura Simon Nina Oscar Julia Martin Clara Victor
    Rosa Felix Helen George Sarah Daniel Lucy Thomas Eva Robert Maria Paul Diana Louis Irene Adam Judith Walter Vera Hugo
""")
DRINKS = _words("""
    tea coffee water milk juice beer wine cider cocoa lemonade soda whisky rum gin vodka champagne syrup brandy port ale
""")
CONTAINERS = _words("""
    cup mug glass bottle jug bowl flask jar pitcher bucket can barrel vase kettle pot goblet basin tub thermos carafe
""")
PROFESSIONS = _words("""
    doctor teacher baker farmer lawyer nurse pilot painter singer writer plumber butcher tailor sailor judge waiter
    carpenter dentist engineer gardener soldier actor barber chemist fisherman librarian mechanic miner postman shepherd
""")
PLACES = _words("""
    store park school office garden station market beach library museum theatre hospital restaurant church hotel airport
""")
OBJECTS = _words("""
    book key box ball ring letter picture basket candle drink phone pen map coin watch bag kite flower cake hammer
""")
EVENTS = _words(
    "war strike siege voyage trial dispute project drought reign feud truce exile famine expedition treaty plague"
)
NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve")
SHORT = _words("""
    red green blue black white yellow cat dog bird fish horse mouse cow lion bear wolf apple bread milk tea salt rice
    book key box ball small big old new sun moon city store tower bridge one two three four five six seven eight
""")
"""Words that most vocabularies have as one token."""
