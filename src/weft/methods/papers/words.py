"""Words that papers need and weft's tasks have not: everyday English nouns in French, none spelt alike. Written for weft."""

from __future__ import annotations

_PAIRS = """
    apple pomme|pear poire|cherry cerise|peach pêche|grape raisin|lemon citron|carrot carotte|onion oignon
    garlic ail|bean haricot|bread pain|milk lait|cheese fromage|butter beurre|water eau|wine vin|salt sel|sugar sucre
    egg œuf|meat viande|fish poisson|horse cheval|cow vache|pig cochon|sheep mouton|goat chèvre|wolf loup|bear ours
    rabbit lapin|mouse souris|cat chat|dog chien|bird oiseau|duck canard|owl hibou|bee abeille|ant fourmi|fly mouche
    tree arbre|flower fleur|leaf feuille|grass herbe|forest forêt|river rivière|sea mer|mountain montagne|sky ciel
    sun soleil|moon lune|star étoile|rain pluie|snow neige|wind vent|fire feu|stone pierre|iron fer|gold or|silver argent
    house maison|door porte|window fenêtre|roof toit|wall mur|kitchen cuisine|room chambre|garden jardin|bridge pont
    street rue|city ville|church église|castle château|school école|book livre|letter lettre|word mot|paper papier
    pen stylo|key clé|knife couteau|spoon cuillère|glass verre|cup tasse|chair chaise|bed lit|lamp lampe
    shirt chemise|coat manteau|hat chapeau|shoe chaussure|glove gant|hand main|foot pied|head tête|eye œil|mouth bouche
    heart cœur|blood sang|king roi|queen reine|child enfant|friend ami|day jour|night nuit|year année|summer été|winter hiver
"""

_WORDS = [entry.split() for line in _PAIRS.strip().splitlines() for entry in line.strip().split("|")]
ENGLISH_FRENCH: dict[str, str] = {english: french for english, french in _WORDS}  # noqa: C416
