"""The sentences that the tiny tokenisers are trained on, and the texts that are encoded for the goldens."""

SENTENCES = [
    "The cat sleeps under a tree, alone.",
    "Where does the river meet the sea?",
    "It dreams of rain and of bread; the owl does not.",
    "A lighthouse keeper writes letters to the harbour every winter.",
    "How long is the railway line between the two towns?",
    "The retrieval of passages depends on the words that they share with the question.",
    "Bees return to the hive when the rain comes.",
    "東京の北には山があります。",
    "梅雨がないのは北海道とどこですか。",
    "川は海へ流れる。",
    "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።",
    "ወንዙ ወደ ባሕር ይፈስሳል።",
]
QUERIES = ["Where does the river meet the sea?", "cat, alone", "北海道の雨"]
DOCUMENTS = [
    "The river meets the sea at the harbour: it is wide, slow and brown.",
    "A cat sleeps under a tree.",
    "Bees!",
    "梅雨がないのは北海道です。",
    "The lighthouse keeper writes that the railway line between the two towns is long, and that the rain does not end "
    "before winter; the owl and the bees sleep, the cat dreams of bread.",
]
TEXTS = [QUERIES[1], *DOCUMENTS[1:2], *DOCUMENTS[3:]]
