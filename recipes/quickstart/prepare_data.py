"""Make the sample data of the quickstart: invented financial news for both stages, and a tiny BERT to train.

    python recipes/quickstart/prepare_data.py [--output_dir DIR] [--seed 7]

It writes data/corpus.txt (one sentence a line, a blank line between documents), data/sentiment_*.csv (seven
ordered shades), data/ner_*.jsonl (IOB2 tags) and tiny-bert/ (a configuration and a tokenizer, no weights).

A shade follows from how a sentence is put together: what moved (a rise in orders is good, one in arrears
bad), how far, whether it is hedged, negated or denied, and which of two clauses has the last word. The
labelled train sets draw on a part of the words and names; the corpus uses all of them, in telling company,
so that there is something to carry over from stage one. Same seed, same bytes.
"""

import argparse
import csv
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import BertConfig, BertTokenizer


def lists(text: str) -> dict[str, tuple[str, ...]]:
    """Read "field: a, b, c" lines; an indented line goes on with the one above."""
    rows = text.strip().replace("\n  ", " ").splitlines()
    return {field: tuple(words.split(", ")) for field, words in (row.split(": ") for row in rows)}


def tables(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read such lines in blocks, each headed by its name."""
    blocks = (block.partition("\n") for block in text.strip().split("\n\n"))
    return {name: lists(rows) for name, _, rows in blocks}


# --- Words -------------------------------------------------------------------------------------------------

SHADES = lists("""
shade: strongly pessimistic, pessimistic, mildly pessimistic, neutral, cautiously optimistic, optimistic,
  strongly optimistic
""")["shade"]
SHADE_SHARE = (0.08, 0.16, 0.16, 0.22, 0.16, 0.14, 0.08)
SPLIT_SIZES = {"sentiment": (600, 140, 420), "ner": (300, 100, 300)}

# Movements by direction and size; a verb is base[/past[/participle]] plus whatever follows it.
MOVES = tables("""
up 1
verb: edge up, inch up, tick up, creep/crept up, nudge higher, drift higher, firm, move up a notch, turn a
  shade higher, pick up a little, stir/stirred upward, crawl up
noun: a slight rise, a modest gain, an uptick, a small increase, a gentle climb, a minor advance

up 2
verb: rise/rose/risen, climb, grow/grew/grown, increase, advance, expand, go/went/gone up, swell, mount, move
  higher, build/built, gain ground, head higher, push upward, come/came/come in higher
noun: a rise, an increase, a climb, an advance, an upturn, a pick-up, growth, expansion

up 3
verb: surge, soar, leap/leapt, jump, rocket, shoot/shot up, balloon, skyrocket, vault, spike, explode,
  mushroom, take/took/taken off, hit/hit a record high, race ahead, spiral upward
noun: a surge, a leap, a jump, an explosion, a steep climb, a huge increase, a spike, runaway growth

down 1
verb: edge down, inch down, tick down, slip/slipped, dip/dipped, ease, soften, drift lower, sag/sagged, shade
  lower, drop/dropped a notch, cool a little, slide/slid a touch
noun: a slight fall, a small dip, a modest decline, a minor drop, a gentle slide, some slippage

down 2
verb: fall/fell/fallen, decline, drop/dropped, decrease, shrink/shrank/shrunk, retreat, contract, recede,
  go/went/gone down, move lower, diminish, head lower, lose/lost ground, come/came/come in lower
noun: a fall, a decline, a drop, a decrease, a downturn, a retreat, shrinkage, a contraction

down 3
verb: plunge, slump, collapse, tumble, plummet, crash, nosedive, sink/sank/sunk, crumble, dive, crater,
  give/gave/given way, hit/hit a record low, go/went/gone into freefall, melt away
noun: a plunge, a slump, a collapse, a huge drop, a steep slide, a crash, a rout, a meltdown
""")
# What a company does, and what people call it, by shade; deeds can be hedged and negated like other verbs.
JUDGED = tables("""
3
deed: smash every forecast, post its best result ever, win/won the contract of the decade, triple its
  dividend, rewrite/rewrote/rewritten its own record books, sweep/swept all its rivals aside
verdict: superb, spectacular, outstanding, stunning, triumphant, magnificent, dazzling, sensational,
  phenomenal

2
deed: beat/beat/beaten its targets, win/won a string of orders, raise its dividend, hire hundreds of staff,
  pay/paid off its loans early, reopen two plants, regain its top credit rating, gain on its rivals
verdict: pleasing, good, strong, welcome, healthy, solid, favourable, impressive, satisfying, robust

1
deed: scrape back into the black, trim/trimmed its losses, find/found some breathing space, turn a corner,
  steady its finances, make/made a little headway, win/won back a few customers
verdict: encouraging, hopeful, promising, reassuring, mildly positive, tolerable, fairly upbeat, better than
  feared

0
verdict: uneventful, unremarkable, middling, routine, humdrum, inconclusive, ordinary, neutral

-1
deed: miss its target by a whisker, fall/fell/fallen a little short of plan, lose/lost a few customers,
  put/put off a small project, trim/trimmed its dividend, run/ran/run slightly late with deliveries
verdict: underwhelming, tepid, uninspiring, lacklustre, so-so, worse than hoped, mildly negative, soft

-2
deed: cut/cut its dividend, issue a profit warning, lose/lost a major customer, close two plants, lay/laid
  off hundreds of staff, breach a loan covenant, lose/lost its top credit rating
verdict: disappointing, poor, weak, worrying, unwelcome, bad, troubling, gloomy, dismal, painful

-3
deed: run/ran/run out of cash, file for protection from creditors, default on its bonds, wipe out its
  capital, face ruin, shut/shut its doors for good, write/wrote/written off half its assets
verdict: dire, disastrous, catastrophic, alarming, devastating, ruinous, calamitous, horrendous, shattering
""")
WORDS = lists("""
weakly: slightly, a little, marginally, a touch, modestly, fractionally, somewhat, a shade, gently, a bit
strongly: sharply, steeply, heavily, markedly, dramatically, massively, hugely, violently, very quickly,
  beyond recognition, by leaps and bounds, enormously
flat: {be} flat, held steady, {be} little changed, {be} unchanged, stayed level, stood still, barely moved,
  moved sideways, matched last year's figure, showed no movement, {be} the same as before, remained stable
modal: may, might, could, {is} likely to, {is} set to, ought to, {is} expected to, {is} on course to, should,
  {is} thought likely to, {is} poised to, will probably, can be expected to
expects: expects, looks for, is braced for, is planning for, foresees, has pencilled in, sees scope for,
  allows for, is preparing for, reckons with, predicts
thinks: thinks, suspects, believes, guesses, reckons, assumes, has a hunch, is fairly sure, argues, feels
denied: denied, disputed, dismissed talk, rejected claims, rebutted a report, was not convinced
joined: In addition, At the same time, Moreover, Meanwhile, Besides, Similarly, As in spring, Once again
glad: pleased, confident, cheerful, relieved, upbeat, proud, glad, delighted, hopeful, in good spirits
sorry: worried, unhappy, gloomy, frustrated, concerned, uneasy, dismayed, downcast, anxious, dejected
wish: demand holds, the weather stays kind, rates come down, the new plant opens on time, the talks succeed
threat: demand fades, the strike drags on, rates climb again, suppliers run late, the talks break down
period: quarter, first half, second half, year, first quarter, third quarter, final quarter, summer, winter
day: Monday, Tuesday, Wednesday, Thursday, Friday
month: January, February, March, April, May, June, July, August, September, October, November, December
""")
# A rise in a good metric is welcome, a rise in a bad one is not.
METRICS = lists("""
good money: profit, revenue, sales, earnings, cash flow, operating income, turnover, net profit, cash
  reserves
good: orders, margins, demand, productivity, the order book, customer numbers, market share, morale, output
  per worker, customer loyalty, returns on capital, volumes
bad money: costs, debt, losses, write-downs, overheads, borrowing, legal bills, unpaid invoices, liabilities
bad: delays, customer complaints, arrears, staff turnover, defects, cancellations, accidents at work, waste,
  absenteeism, penalties, outages, red tape
""")
SECTORS = tables("""
bank
suffix: Bank, Savings, Trust, Bancorp
kind: lender, bank
good: deposits, mortgage lending, fee income, net interest income, the capital ratio, new accounts
bad: bad loans, defaults, loan losses, repossessions, the cost of deposits, fraud claims
goods: mortgages, savings accounts, business loans, credit cards, car loans
boon: higher interest rates, a thaw in the housing market, a wave of new savers, fewer bankruptcies
blow: a run on small banks, a property slump, cheaper loans elsewhere, a costly merger

miner
suffix: Mining, Minerals, Copper, Resources
kind: miner, mining group
good: ore output, copper grades, shipments of zinc, proven reserves, tonnage, smelter throughput
bad: pit accidents, diesel bills, tailings leaks, royalty payments, haulage costs, idle shifts
goods: copper, zinc, nickel ore, iron ore, lithium
boon: a richer seam, dearer metals, a drier season at the pits, a new rail link to the port
blow: flooding underground, a walkout at the smelter, cheaper metals, a broken crusher

drugs
suffix: Pharma, Biotech, Therapeutics, Laboratories
kind: drug maker, pharmaceutical group
good: prescriptions, vaccine sales, trial enrolment, patent income, approvals, licence fees
bad: side effects, product recalls, trial failures, patent disputes, refunds to hospitals, lab costs
goods: insulin, vaccines, painkillers, eye drops, cancer drugs
boon: a swift approval, good trial data, an extended patent, a large hospital contract
blow: a failed trial, the loss of a patent, a recall of eye drops, cheap generic copies

shipper
suffix: Shipping, Lines, Marine, Freight
kind: shipper, shipping line
good: freight rates, container volumes, charter income, bookings, vessel use, port calls
bad: bunker fuel costs, port congestion, demurrage charges, idle ships, cargo claims, piracy losses
goods: container ships, bulk carriers, tankers, ferries, cold-storage vessels
boon: a reopened canal, longer charters, a rush of toy imports, shorter queues at the docks
blow: a blocked canal, storms at sea, too many new ships, a dock strike

retailer
suffix: Stores, Retail, Outfitters, Markets
kind: retailer, store chain
good: footfall, like-for-like sales, basket sizes, online orders, loyalty sign-ups, takings
bad: markdowns, shoplifting, unsold stock, returns, shop rents, empty shelves
goods: winter coats, garden furniture, groceries, school uniforms, kitchenware
boon: a busy holiday season, a popular coat range, a faster website, warm weather
blow: a wet summer, thrifty shoppers, a botched website, a late delivery of coats

chips
suffix: Semiconductor, Devices, Circuits, Micro
kind: chip maker, semiconductor group
good: wafer starts, chip yields, design wins, sensor shipments, the backlog of chips, factory use
bad: scrap rates, warranty claims, chip shortages, inventory write-offs, tool downtime, licence disputes
goods: memory chips, sensors, power chips, graphics chips, test boards
boon: demand from car makers, better yields, a big design win, a new clean room
blow: a glut of memory chips, an export ban, a fire in the clean room, a lost design

utility
suffix: Power, Water, Energy, Electric
kind: utility, power company
good: power output, wind generation, network reliability, regulated income, meter installations, grid sales
bad: blackouts, pipe leaks, fuel bills, unpaid bills, storm damage, emissions fines
goods: electricity, drinking water, wind farms, gas pipelines, smart meters
boon: steady winds, a kinder price cap, a wet spring in the hills, a repaired turbine
blow: a drought, a stricter price cap, a burst main, a failed turbine

airline
suffix: Airways, Air, Aviation, Airlines
kind: airline, carrier
good: passenger numbers, load factors, ticket sales, cargo income, on-time arrivals, seat bookings
bad: jet fuel costs, cancelled flights, lost bags, landing fees, refund claims, engine faults
goods: long-haul flights, cargo flights, charter trips, regional jets, lounge passes
boon: cheaper jet fuel, a rush of summer bookings, extra landing slots, a new route
blow: a pilots' strike, fog at its hub, grounded jets, dearer jet fuel

builder
suffix: Homes, Construction, Building, Cement
kind: builder, construction group
good: completions, reservations, land values, cement deliveries, contract wins, house prices
bad: building defects, site accidents, steel prices, planning delays, cost overruns, unsold flats
goods: starter homes, bridges, office towers, cement, hospitals
boon: quicker planning approvals, a big bridge contract, cheaper timber, lower mortgage rates
blow: a cement shortage, frozen ground, a cancelled bridge, dearer mortgages

insurer
suffix: Insurance, Assurance, Mutual, Life
kind: insurer, insurance group
good: premiums, new policies, policy renewals, investment income, the solvency ratio, pension inflows
bad: storm claims, motor claims, lapsed policies, pension shortfalls, fraud cases, hail damage
goods: car policies, life cover, pensions, home policies, crop insurance
boon: a calm storm season, dearer policies, fewer car crashes, firmer bond markets
blow: a string of hurricanes, a hailstorm, a price war in car policies, weak bond markets
""")

# Surnames, companies and towns share these pieces, and often the whole name: only context tells them apart.
# "known" are real towns, families and companies that the pieces happen to spell: they are left out.
NAMES = lists("""
stem: Mar, Hald, Oster, Thorn, Brack, Keld, Ald, Fenn, Grims, Kess, Lor, Pell, Quill, Rav, Sedd, Tall, Ulv,
  Vern, Wex, Yarr, Dunn, Cald, Brin, Holl, Norr, Stav, Tregg, Mord, Zell, Isk, Berg, Crow, Dray, Eld, Garn,
  Haver, Jarr, Lind, Nest, Orl, Perr, Rusk, Silv, Tarn, Wolv
ending: low, en, mere, field, wick, moor, ley, stone, by, worth, bury, ton, brook, gate, and, ova, ini, ec,
  dale, haven
he: Paul, Omar, Stefan, Hiro, Luis, Peter, Anders, Kofi, Tomas, David, Ravi, Marco, George, Emil, Samuel,
  Viktor, Daniel, Ivan, Hugo, Martin, Felix, Arthur, Leon, Karim, Walter, Oscar, Simon, Jonas, Edgar, Milan
she: Ingrid, Maria, Helen, Aisha, Clara, Nadia, Ruth, Sofia, Elena, Grace, Priya, Julia, Agnes, Mei, Laura,
  Olga, Carmen, Esther, Yuki, Hanna, Irene, Diana, Fatima, Alice, Martha, Nora, Vera, Joan, Petra, Lucia
land: Norway, Chile, Canada, Vietnam, Poland, Kenya, New Zealand, South Korea, Portugal, Peru, the U.S.,
  Ghana, South Africa, Denmark, Mexico, Indonesia, Morocco, Costa Rica, Ireland, Austria
body: Federal Freight Board, Union of Dock Workers, Office for Fair Lending, National Drugs Council, Chamber
  of Mines, Competition Tribunal, Homeowners League, Institute of Forecasters, Pilots Alliance, Central Bank,
  Ministry of Trade, Grid Authority, Consumer Watch, State Pension Fund
house: Capital, Partners, Securities, Research, Brothers, Asset Management, & Co.
form: Inc., Group, plc, Holdings, Corp., Ltd.
quarter: Port, East, New, Lake, North
known: Holland, Grimsby, Alden, Marley, Aldgate, Brinton, Bergen, Linden, Crowley, Orlen, Vernova, Marwick
""")

# --- Patterns ----------------------------------------------------------------------------------------------
# {noun} is the movement as a noun phrase ("a dip in costs"), {bare} the same without its article.

FACTS = (
    "{np} {past}",
    "{np} {past} in the {period}",
    "{np} {have} {pp} since {month}",
    "{speaker} said {np} had {pp}",
    "{speaker} told investors on {day} that {np} had {pp}",
    "{speaker} admitted that {np} {past} in the {period}",
    "figures published on {day} showed that {np} had {pp}",
    "{analyst} noted that {np} had {pp}",
    "auditors confirmed {noun}",
    "{speaker} reported {noun}",
    "there was {noun} in the {period}",
    "{noun} took the market by surprise",
    "the {period} brought {noun}",
)
HEDGES = (
    "{np} {modal} {base}",
    "{np} {modal} {base} {cond}",
    "{cond}, {np} {modal} {base}",
    "{speaker} {expects} {noun}",
    "{speaker} {expects} {noun} {cond}",
    "{analyst} {thinks} that {np} will {base}",
    "{analyst} {thinks} that {np} might {base} {cond}",
    "there are signs that {np} will {base}",
    "{speaker} gave a hint that {np} would {base}",
    "{np} {modal} {base}, according to {house}",
    "{noun} seems possible in the {period}",
    "it would surprise nobody if {np} were to {base}",
)
NOT_BOTH = (
    "{np} did not {base} after all",
    "{np} did not {base}, contrary to forecasts",
    "{speaker} {denied} that {np} had {pp}",
    "a report that {np} had {pp} proved false",
    "the {bare} that {analyst} had predicted never came",
    "{analyst} was wrong to predict {noun}",
)
NOT_GOOD = (
    "{np} failed to {base}",
    "{np} {have} yet to {base}",
    "hopes that {np} would {base} came to nothing",
    "the hoped-for {bare} never came",
    "{speaker} missed out on {noun}",
)
NOT_BAD = (
    "fears that {np} would {base} came to nothing",
    "the feared {bare} never came",
    "{speaker} narrowly avoided {noun}",
    "{speaker} was spared {noun}",
    "{np} could have {pp} but for some quick thinking",
)
NO_LONGER = (
    "{speaker} no longer expects {noun}",
    "{speaker} has dropped its forecast of {noun}",
    "{analyst} has stopped predicting that {np} will {base}",
    "nobody believes any more that {np} will {base}",
    "{noun} is now out of the question",
    "there is no prospect left of {noun}",
)
OPEN = (
    "{speaker} would not confirm that {np} had {pp}",
    "it is too early to tell whether {np} will {base}",
    "analysts are split on whether {np} will {base}",
    "{speaker} made no comment on a report of {noun}",
    "asked about {noun}, {speaker} pointed to figures due on {day}",
    "{speaker} will say on {day} whether {np} {past}",
    "{noun} early in the {period} was cancelled out later on",
    "{np} {past} at first but ended the {period} where the year had begun",
    "{noun} was exactly matched by {opposite}",
    "{np} {flat} in the {period}",
    "{speaker} said that {np} {flat}",
    "as in the year before, {np} {flat}",
)
ROUTINE = (
    "{speaker} moved its annual meeting from {town} to {town2}",
    "{ceo} will speak at a conference in {land} on {day}",
    "{speaker} raised the number of board seats from {small} to {big}",
    "{speaker} cut the number of board seats from {big} to {small}",
    "{speaker} named {cfo} as its head of {goods}",
    "{speaker} will publish its results for the {period} on {day}",
    "{speaker}, which sells {goods}, has its head office in {town}",
    "{cfo} takes over the {goods} division from {ceo} on {day}",
    "the {body} renewed the licence of {short} on the same terms",
    "{speaker} swapped one supplier of {goods} for another",
)
OPINIONS = (
    "{analyst} called the {period} {adj}",
    "the {period} was {adj} in the eyes of {house}",
    "{speaker} described trading as {adj}",
    "the figures were {adj}, {analyst} said",
    "{house} found the news from {short} {adj}",
    "it was {an_adj} {period} for {short}",
    "{ceo} spoke of {an_adj} {period}",
)
# The clause {main} decides, the clause or noun phrase of the other event only sets it off.
CONTRASTS = (
    "{sub}, but {main}",
    "although {sub}, {main}",
    "{main}, even though {sub}",
    "{main}, although {sub}",
    "despite {noun}, {main}",
    "{main}, despite {noun}",
    "{sub}; even so, {main}",
    "while {sub}, {main}",
    "{sub}, yet {main}",
    "a year ago {sub}; this time {main}",
    "analysts had counted on {noun}; instead, {main}",
    "leaving aside {noun}, {main}",
    "{sub}, a side issue; what matters is that {main}",
    "never mind {noun}: {main}",
)
AFTERTHOUGHTS = (
    ", {an_adj} result in the eyes of {analyst}",
    ", which {house} called {adj}",
    ", {an_adj} turn of events for the {kind}",
    ", and investors found the news {adj}",
    ", something {mr} described as {adj}",
    ": {an_adj} outcome",
    " - {adj}, in the words of {analyst}",
)

# A document takes its sentences from these, in this order; all share one company and one outlook.
LEADS = (
    "{full}, the {kind} based in {town}, said on {day} that its {metric} had {pp} in the {period}.",
    "{metric} at {full} {past} in the {period}, the {town} {kind} said on {day}.",
    "{full} on {day} reported {noun} for the {period}.",
    "{town}, {month} {dom} - {full} said its {metric} {past} in the {period}.",
    "It was {an_adj} {period} for {full}, the {kind} led by {ceo}: {metric} {past}.",
    "{metric} at {full}, which sells {goods} from its base in {town}, {past} in the {period}.",
    "The {town} {kind} {full} has published {adj} figures: {metric} {past}.",
)
FLAT_LEADS = (
    "{full}, the {kind} based in {town}, said on {day} that its {metric} {flat} in the {period}.",
    "{metric} at {full} {flat} in the {period}, the {town} {kind} said on {day}.",
    "It was {an_adj} {period} for {full}, the {kind} led by {ceo}: {metric} {flat}.",
    "The {town} {kind} {full} has published {adj} figures for the {period}.",
)
FIGURES = (
    "{metric} {past} to {from_to} million a year earlier.",
    "In figures, {metric} {past} ({percent}).",
    "{metric} {past}, a change of {percent}, and {metric2} {past2}.",
    "{joined}, {metric} {past} ({percent}), the {kind} said.",
    "{joined}, {metric} {past} in {land}, where the {kind} sells {goods}.",
    "For the {goods} division alone, {metric} {past} to {from_to} million.",
)
CAUSES = (
    "The {kind} {thanked} {cause}.",
    "{mr} {thanked} {cause} in {land}.",
    "{thanked_by} {cause}, {metric} {past} at the {town} office too.",
    "As a result of {cause}, {metric} {past}.",
    "Because of {cause}, {short} saw {noun}.",
    "Behind the figures lay {cause}, {mr} said.",
    "{metric} {past} because of {cause}, though {counter} had been expected.",
)
QUOTES = (
    '"We are {mood} about {metric}, which {past}," said {ceo}, chief executive of {short}.',
    '"It has been {an_adj} {period}," {ceo} said, "and {cause} had a lot to do with it."',
    '"With {cause}, {metric} {past}," said {cfo}, who is in charge of finance.',
    '"I call that {adj}," {mr} told reporters in {town}.',
    '"Everyone at {short} is {mood}," {pronoun} said.',
    "{pronoun} added that the staff in {town} were {mood}.",
    "{mr} said {he} was {mood} about {noun}.",
)
COUNTERS = (
    "However, {metric} {past}.",
    "By contrast, {metric} {past} ({percent}), which {mr} called a side issue.",
    "Even so, {noun} showed that not all went the same way.",
    "On the other hand, {metric} {past} in {land}.",
    "Not everything fits the picture: {metric} {past}.",
)
BACKGROUND = (
    "{short} sells {goods} in {land} and has {staff} employees.",
    "{ceo}, {age}, has run the {kind} since {since}.",
    "The {kind} was founded in {town} in {year} and also sells {goods}.",
    "{cfo} joined from {rival} in {recent} as chief financial officer.",
    "Its rival {rival} sells {goods} as well.",
    "The {body} has looked after firms like {short} since {recent}.",
    "The head office in {town} (a short drive from {town2}) was built in {recent}.",
    "{mr}, who was born in {town2}, owns {small} percent of the shares.",
    "The {kind} opened an office in {land} in {recent}.",
)
MARKETS = (
    "Shares in {short} {past}, to ${price}.",
    "The stock {past} ({percent}) in {town2} on {day}.",
    "Investors were {mood}: the shares {past} within an hour.",
    "The price of its bonds {past} on the news, and so did the shares of {rival}.",
    "By the close on {day} the shares had {pp}, {an_adj} end to the week.",
    "Trading in {short} ended on {an_adj} note.",
)
ENTITY_LINES = (
    "{mr} of {short} flew from {town} to {land} on {day}.",
    "{last} and {last2} met in {town2} to talk about {goods}.",
    "{town} has been home to {full} since {year}.",
    "{last} left {short} for {rival} in {recent}.",
    "In {town2}, {last2} opened a new office of {rival}.",
    "{ceo} grew up in {town2}, studied in {town} and joined {short} in {since}.",
    "The road from {town} to {town2} was closed on {day}.",
    "{short} and {rival} share a warehouse outside {town2}.",
    "{last} has never worked anywhere but {town}.",
    "{house} asked the {body} to look at the sale of {rival} to {short}.",
    "Neither {last} nor {last2} would comment, and {short} did not return calls.",
    "Officials of the {body} visited {town} and {town2} in {month}.",
    "{rival} hired {analyst_name} away from {house}.",
    "The mayor of {town2}, {any_name}, wrote to {short} about {goods}.",
    "People in {town2} buy their {goods} from {rival}.",
    "{any_name} sued {short} in {land} over {goods}.",
    "The offices of {short} in {town} and {land} will close on {day}.",
    "Before {last} took over, {last2} ran {short} from {town2}.",
    "{house}, {rival} and the {body} sent no one to {town}.",
    "{town2} lies {big} miles north of {town}.",
)

# --- Companies and the people around them ------------------------------------------------------------------


@dataclass(frozen=True)
class Firm:
    """A company, the people who run it, its town, and what is told of it."""

    stem: str
    full: str
    sector: str
    ceo: tuple[str, str]
    cfo: tuple[str, str]
    town: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Movement:
    """What moved, or what a company did: the forms that patterns ask for; the value is a shade, -3 to 3."""

    value: int
    metric: str
    base: str
    past: str
    participle: str
    noun: str
    up: bool = True
    size: int = 2


def mark(kind: str, name: str) -> str:
    """Wrap a name in its entity type; the article of "the U.S." stays outside."""
    return f"the <{kind}:{name[4:]}>" if name.startswith("the ") else f"<{kind}:{name}>"


def plain(text: str) -> str:
    """Marked-up text without its marks."""
    return re.sub(r"<\w+:(.*?)>", r"\1", text)


def is_plural(noun: str) -> bool:
    """Whether the noun before any "of" or "in" ends in s."""
    return re.split(" (?:of|on|at|per|to|in) ", noun)[0].endswith("s")


def verb_forms(entry: str) -> tuple[str, str, str]:
    """Base, past and participle of a verb list's entry, each with the words that follow the verb."""
    verb, _, rest = entry.partition(" ")
    base, *irregular = verb.split("/")
    regular = base + "d" if base.endswith("e") else base + "ed"
    past = irregular[0] if irregular else re.sub(r"([^aeiou])yed$", r"\1ied", regular)
    participle = irregular[1] if len(irregular) > 1 else past
    return f"{base} {rest}".strip(), f"{past} {rest}".strip(), f"{participle} {rest}".strip()


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an"."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def invented_names(rng: random.Random, count: int) -> list[str]:
    """Names that serve as surname, company and town alike."""
    joined = [re.sub(r"(.)\1\1", r"\1\1", stem + end) for stem in NAMES["stem"] for end in NAMES["ending"]]
    return rng.sample([name for name in dict.fromkeys(joined) if name not in NAMES["known"]], count)


def make_firms(rng: random.Random) -> list[Firm]:
    """Companies whose stems overlap with the surnames and the towns."""
    names = invented_names(rng, 640)
    surnames = names[:200] + names[340:]
    firms = []
    for index, stem in enumerate(names[80:480]):
        sector = list(SECTORS)[index % len(SECTORS)]
        second = f" & {rng.choice(names)}" if rng.random() < 0.15 else ""
        full = f"{stem}{second} {rng.choice(SECTORS[sector]['suffix'])}"
        people = list(zip(rng.sample(NAMES["he"] + NAMES["she"], 2), rng.sample(surnames, 2), strict=True))
        if rng.random() < 0.25:
            people[0] = (people[0][0], stem)
        place = rng.choice(names[:220])
        town = f"{rng.choice(NAMES['quarter'])} {place}" if rng.random() < 0.3 else place
        facts = {
            "year": str(rng.randint(1921, 1989)),
            "since": str(rng.randint(2003, 2024)),
            "age": str(rng.randint(48, 67)),
            "staff": f"{rng.randint(2, 48)},{rng.randint(1, 9)}00",
        }
        firms.append(Firm(stem, full, sector, people[0], people[1], town, facts))
    return firms


def make_houses(rng: random.Random) -> tuple[str, ...]:
    """Analyst houses with one analyst each, as "house/first/last"."""
    names = invented_names(rng, 64)
    people = [(rng.choice(NAMES["he"] + NAMES["she"]), last) for last in names[32:]]
    titles = (f"{name} {rng.choice(NAMES['house'])}" for name in names[:32])
    return tuple("/".join((title, *person)) for title, person in zip(titles, people, strict=True))


# --- Sentences ---------------------------------------------------------------------------------------------


class Newsroom:
    """Writes sentences with a share of all words and names; 1.0 knows them all."""

    def __init__(self, rng: random.Random, firms: list[Firm], houses: tuple[str, ...], share: float = 1.0) -> None:
        self.rng, self.share = rng, share
        self.firms = firms[: round(len(firms) * share)]
        self.houses = houses[: round(len(houses) * share)]
        self.open_story()

    def pick(self, options: tuple[str, ...]) -> str:
        """One of the words known here; which ones are known depends on the list alone."""
        if self.share == 1.0:
            return self.rng.choice(options)
        known = random.Random(" ".join(options)).sample(options, max(2, round(len(options) * self.share)))
        return self.rng.choice(known)

    def open_story(self) -> None:
        """Choose the company and the others that the next sentences are about."""
        rng = self.rng
        self.firm = rng.choice(self.firms)
        peers = [firm for firm in self.firms if firm.sector == self.firm.sector and firm != self.firm]
        rival, other = rng.choice(peers), rng.choice(self.firms)
        house, first, last = rng.choice(self.houses).split("/")
        self.sector = SECTORS[self.firm.sector]
        man = self.firm.ceo[0] in NAMES["he"]
        self.used: list[str] = []
        mr = f"{'Mr.' if man else 'Ms.'} {mark('PER', self.firm.ceo[1])}"
        self.cast = self.firm.facts | {
            "full": mark("ORG", f"{self.firm.full} {rng.choice(NAMES['form'])}"),
            "rival": mark("ORG", rng.choice((rival.stem, rival.full, rival.full))),
            "house": mark("ORG", house),
            "analyst": f"{mark('PER', f'{first} {last}')} of {mark('ORG', house)}",
            "analyst_name": mark("PER", f"{first} {last}"),
            "ceo": mark("PER", " ".join(self.firm.ceo)),
            "cfo": mark("PER", " ".join(self.firm.cfo)),
            "last": mark("PER", self.firm.ceo[1]),
            "last2": mark("PER", rival.ceo[1]),
            "any_name": mark("PER", f"{other.cfo[0]} {rival.cfo[1]}"),
            "mr": mr,
            "pronoun": mr,
            "he": "he" if man else "she",
            "town": mark("LOC", self.firm.town),
            "town2": mark("LOC", other.town if other.town != self.firm.town else f"Old {other.town}"),
            "period": self.pick(WORDS["period"]),
        }

    def small_things(self) -> dict[str, str]:
        """What may differ from one sentence of a story to the next."""
        rng, firm = self.rng, self.firm
        small = rng.randint(3, 9)
        short = mark("ORG", rng.choice((firm.stem, firm.full)))
        kind = rng.choice(self.sector["kind"])
        drawn = ("day", "month", "joined", "expects", "thinks", "denied")
        return {slot: self.pick(WORDS[slot]) for slot in drawn} | {
            "short": short,
            "kind": kind,
            "speaker": rng.choice((short, f"the {kind}", f"the {kind}", "the board", "the company")),
            "goods": self.pick(self.sector["goods"]),
            "body": mark("ORG", self.pick(NAMES["body"])),
            "land": mark("LOC", self.pick(NAMES["land"])),
            "dom": str(rng.randint(1, 28)),
            "recent": str(rng.randint(2003, 2024)),
            "price": f"{rng.randint(4, 190)}.{rng.randint(10, 99)}",
            "small": str(small),
            "big": str(small + rng.randint(1, 6)),
        }

    def pattern(self, patterns: tuple[str, ...]) -> str:
        """A pattern that this story has not used yet, as long as there is one."""
        fresh = [pattern for pattern in patterns if pattern not in self.used]
        chosen = self.rng.choice(fresh or patterns)
        self.used.append(chosen)
        return chosen

    def movement(self, value: int, money: bool = False, bare: bool = False) -> Movement:
        """A movement of one metric that is worth `value`; `bare` leaves out adverbs."""
        rng, size = self.rng, abs(value)
        kind = rng.choice(("good", "good", "good", "good", "bad"))
        bills, special = METRICS[f"{kind} money"], self.sector[kind]
        metric = self.pick(bills if money else rng.choice((bills, METRICS[kind], special, special)))
        up = (kind == "good") == (value > 0)
        way = "up" if up else "down"
        noun = f"{self.pick(MOVES[f'{way} {size}']['noun'])} in {metric}"
        verbs, adverb = MOVES[f"{way} {size}"]["verb"], ""
        if size != 2 and not bare and rng.random() < 0.4:
            verbs = tuple(verb for verb in MOVES[f"{way} 2"]["verb"] if " " not in verb)
            adverb = " " + self.pick(WORDS["weakly" if size == 1 else "strongly"])
        base, past, participle = (form + adverb for form in verb_forms(self.pick(verbs)))
        return Movement(value, metric, base, past, participle, noun, up, size)

    def deed(self, value: int) -> Movement:
        """What a company did that is worth `value`, such as cutting its dividend."""
        return Movement(value, "", *verb_forms(self.pick(JUDGED[str(value)]["deed"])), "")

    def subject(self, pattern: str, move: Movement, small: dict[str, str]) -> str:
        """The noun phrase that moves, with an owner unless the pattern's speaker is the owner."""
        short, kind, pick = small["short"], small["kind"], self.rng.choice
        if not move.metric:
            return "it" if "{speaker}" in pattern else pick((short, f"the {kind}"))
        owned = move.metric.removeprefix("the ")
        if "{speaker}" in pattern:
            return pick((move.metric, f"its {owned}"))
        whose = f"{short}'" if short.endswith("s>") else f"{short}'s"
        owners = (f"{whose} {owned}", f"{move.metric} at {short}", f"the {kind}'s {owned}")
        return pick((move.metric, move.metric, *owners))

    def say(self, pattern: str, move: Movement, mood: int | None = None, **more: str) -> str:
        """Fill a pattern; `mood` is the shade of its adjectives where that is not the movement's own."""
        rng, small = self.rng, self.small_things()
        shade = move.value if mood is None else mood
        wish, threat = ("wish", "threat") if move.value > 0 else ("threat", "wish")
        cond = f"if {self.pick(WORDS[wish])}" if rng.random() < 0.5 else f"unless {self.pick(WORDS[threat])}"
        many, adjective = is_plural(move.metric), self.pick(JUDGED[str(shade)]["verdict"])
        share = rng.randint(*{1: (2, 19), 2: (40, 159), 3: (280, 890)}[move.size]) / 10
        start = rng.randint(20, 900)
        end = start * (1 + (share if move.up else -share) / 100)
        glad = self.sector["boon" if shade > 0 else "blow"], self.sector["blow" if shade > 0 else "boon"]
        slots = {
            "np": self.subject(pattern, move, small),
            "metric": move.metric,
            "base": move.base,
            "past": move.past,
            "pp": move.participle,
            "noun": move.noun,
            "bare": re.sub("^(an?|some) ", "", move.noun),
            "have": "have" if many else "has",
            "flat": self.pick(WORDS["flat"]).format(be="were" if many else "was"),
            "modal": self.pick(WORDS["modal"]).format(**{"is": "are" if many else "is"}),
            "cond": cond,
            "adj": adjective,
            "an_adj": with_article(adjective),
            "mood": self.pick(WORDS["glad" if shade > 0 else "sorry"]),
            "percent": f"{'+' if move.up else '-'}{share:.1f}%",
            "from_to": f"${end:.1f} million from ${start}",
            "cause": self.pick(glad[0]),
            "counter": self.pick(glad[1]),
            "thanked": rng.choice(("credited", "thanked") if shade > 0 else ("blamed", "pointed to")),
            "thanked_by": rng.choice(("Helped by", "Thanks to") if shade > 0 else ("Hurt by", "Hit by")),
        }
        return pattern.format(**self.cast, **small, **(slots | more))

    def clause(self, value: int) -> str:
        """One clause of the given shade: a fact, a hedge, a negation or an opinion."""
        rng, sign = self.rng, 1 if value > 0 else -1
        if value == 0:
            return self.neutral_clause()
        # Each way: patterns, what the bare movement is worth, and whether adverbs and deeds fit.
        ways = [(FACTS, value, True)] * 2 + [(OPINIONS, value, False)] * 3
        if abs(value) < 3:
            ways += [(HEDGES, value + sign, True)] * 2
        if abs(value) == 1:
            ways += [(HEDGES, value, True)]
        if rng.random() < 0.2:  # what moved did not, or no longer will
            ways = [(NO_LONGER, -value, False)] if abs(value) == 2 else ways
            denials = (NOT_BOTH, NOT_BAD if value > 0 else NOT_GOOD)
            ways = [(rng.choice(denials), -value * 2, False)] if abs(value) == 1 else ways
        patterns, worth, free = rng.choice(ways)
        pattern = self.pattern(patterns)
        if patterns is not OPINIONS and rng.random() < 0.25 and not re.search("{(noun|bare)}|since", pattern):
            return self.say(pattern, self.deed(worth), value)
        return self.say(pattern, self.movement(worth, bare=not free), value)

    def neutral_clause(self) -> str:
        """Nothing has moved yet, nothing is known, or it makes no odds."""
        rng = self.rng
        kind = rng.choice((OPEN, OPEN, OPEN, ROUTINE, OPINIONS))
        move = self.movement(rng.choice((-3, -2, -1, 1, 2, 3)), bare=True)
        opposite = self.movement(-move.value).noun
        return self.say(rng.choice(kind), move, 0, opposite=opposite)

    def reading(self, value: int) -> str:
        """A sentence of the given shade, often with a second clause that pulls the other way."""
        main, rng = self.clause(value), self.rng
        if value == 0 or rng.random() < 0.8:
            return main
        aside = self.movement(rng.randint(-3, -1) if value > 0 else rng.randint(1, 3))
        while aside.metric.removeprefix("the ") in main:
            aside = self.movement(aside.value)
        forms = ("{metric} {past}", "{metric} {have} {pp}", "{metric} {modal} {base}")
        pattern = self.pattern(CONTRASTS)
        sub = self.say(forms[0] if pattern.startswith("a year ago") else rng.choice(forms), aside)
        return pattern.format(main=main, sub=sub, noun=aside.noun)


def sentence(text: str) -> str:
    """Capital first, one full stop last."""
    start = 1 + text.index(":") if text.startswith("<") else 0
    text = text[:start] + text[start].upper() + text[start + 1 :]
    if not text.endswith((".", '"')):
        text += "."
    return re.sub(r"\.(>?)\.$", r".\1", text)


# --- Documents ---------------------------------------------------------------------------------------------

NEWS, OUTLOOK = ("news",), ("outlook",)
STARTS = ("for the full year, ", "looking ahead, ", "from now on, ", "next year, ", "")
EARLY_STAGES = (FIGURES, FIGURES, NEWS, CAUSES, QUOTES, QUOTES, COUNTERS, BACKGROUND)
STAGES = (*EARLY_STAGES, NEWS, BACKGROUND, OUTLOOK, OPINIONS, NEWS, MARKETS, ENTITY_LINES)
FLAT_STAGES = (NEWS, NEWS, BACKGROUND, NEWS, BACKGROUND, OPINIONS, ENTITY_LINES, ENTITY_LINES)
LENGTHS = (3, 5, 80, 55, 36, 24, 15, 10, 6, 4, 3, 2, 2)


def stage_sentence(room: Newsroom, stage: tuple[str, ...], trend: int) -> str:
    """One sentence of a document whose outlook is `trend`."""
    rng, sign = room.rng, (trend > 0) - (trend < 0)
    value = sign * rng.randint(1, 3)
    if stage is NEWS:
        said = room.reading(value)
        judged = any(word in said for word in JUDGED[str(value)]["verdict"])
        if not judged and rng.random() < 0.65:
            said += room.say(room.pattern(AFTERTHOUGHTS), room.movement(value or 1), value)
        return sentence(said)
    if stage is OUTLOOK:
        return sentence(rng.choice(STARTS) + room.say(room.pattern(HEDGES), room.movement(value)))
    pattern = room.pattern(stage)
    value = -sign * rng.randint(1, 2) if stage is COUNTERS else trend
    move, second = room.movement(value or 1, money="{from_to}" in pattern), room.movement(value or 1)
    if stage is MARKETS:
        verbs = MOVES[f"{'up' if value > 0 else 'down'} {abs(value)}"]["verb"]
        move = Movement(value, "shares", *verb_forms(room.pick(verbs)), "", value > 0, abs(value))
    return sentence(room.say(pattern, move, value, metric2=second.metric, past2=second.past))


def document(room: Newsroom) -> list[str]:
    """A story about one company: headline, figures, cause, quotes, outlook, reaction."""
    rng = room.rng
    room.open_story()
    trend = rng.choices(range(-3, 4), (3, 4, 3, 2, 3, 4, 3))[0]
    stages = STAGES if trend else FLAT_STAGES
    length = rng.choices((1, 2, *range(4, 15)), LENGTHS)[0]
    chosen = sorted(rng.sample(range(len(stages)), min(length - 1, len(stages))))
    lines = []
    for stage in [LEADS if trend else FLAT_LEADS, *(stages[index] for index in chosen)]:
        lines.append(stage_sentence(room, stage, trend))
        if room.cast["last"][5:] in lines[-1]:
            room.cast["pronoun"] = room.cast["he"]
    return lines


def write_corpus(path: Path, room: Newsroom, documents: int = 2700) -> set[str]:
    """Write the documents; return all their sentences."""
    texts: dict[str, None] = {}
    while len(texts) < documents:
        lines = [plain(line) for line in document(room)]
        if len(set(lines)) == len(lines):
            texts["\n".join(lines) + "\n"] = None
    path.write_text("\n".join(texts), encoding="utf-8", newline="\n")
    return {line for text in texts for line in text.splitlines()}


# --- Labelled sets -----------------------------------------------------------------------------------------


def sentiment_rows(room: Newsroom, count: int, taken: set[str]) -> list[tuple[str, str]]:
    """Labelled sentences, fewer at the two ends; `taken` keeps every text to one place."""
    counts = [round(count * share) for share in SHADE_SHARE]
    counts[3] += count - sum(counts)
    rows = []
    for value, wanted in zip(range(-3, 4), counts, strict=True):
        while wanted:
            room.open_story()
            text = plain(sentence(room.reading(value)))
            if text not in taken:
                taken.add(text)
                rows.append((text, SHADES[value + 3]))
                wanted -= 1
    room.rng.shuffle(rows)
    return rows


def tagged(text: str) -> dict[str, list[str]]:
    """Split marked-up text into tokens and IOB2 tags."""
    pattern = r"(?:U\.S|Inc|Corp|Ltd|Co|Mr|Ms)\.|\d+(?:[.,]\d+)*|'s\b|\w+(?:-\w+)*|\S"
    tokens: list[str] = []
    tags: list[str] = []
    for piece in re.findall(r"<\w+:.*?>|[^<]+", text):
        kind, _, name = piece[1:-1].partition(":") if piece.startswith("<") else ("", "", piece)
        found = re.findall(pattern, name)
        tokens += found
        tags += [f"{'I' if place else 'B'}-{kind}" if kind else "O" for place in range(len(found))]
    return {"tokens": tokens, "ner_tags": tags}


def ner_sentences(room: Newsroom, count: int, taken: set[str]) -> Iterator[dict[str, list[str]]]:
    """Tagged sentences: half about who went where, the rest business news, with or without names."""
    stages = (*(ENTITY_LINES,) * 6, LEADS, QUOTES, BACKGROUND, COUNTERS, CAUSES, FIGURES, NEWS, NEWS, OUTLOOK)
    while count:
        room.open_story()
        line = stage_sentence(room, room.rng.choice(stages), room.rng.choice((-3, -2, -1, 1, 2, 3)))
        if plain(line) not in taken:
            taken.add(plain(line))
            count -= 1
            yield tagged(line)


def write_labelled(folder: Path, seed: int, firms: list[Firm], houses: tuple[str, ...], taken: set[str]) -> None:
    """Write both tasks' splits; train knows a part of the words and names, the others know all."""
    for index, split in enumerate(("train", "validation", "test")):
        room = Newsroom(random.Random(seed + 1 + index), firms, houses, 0.6 if split == "train" else 1.0)
        rows = sentiment_rows(room, SPLIT_SIZES["sentiment"][index], taken)
        with open(folder / f"sentiment_{split}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("text", "label"), *rows])
        lines = [json.dumps(row) for row in ner_sentences(room, SPLIT_SIZES["ner"][index], taken)]
        text = "\n".join(lines) + "\n"
        (folder / f"ner_{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")


# --- Tokenizer and model configuration ---------------------------------------------------------------------


def wordpiece_vocabulary(corpus: str, size: int) -> list[str]:
    """Learn word pieces by merging the commonest neighbours, ties in alphabetical order.

    The tokenizers library has a trainer, but it breaks ties by the order of a hash table, so two runs differ.
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for line in corpus.splitlines() for word, _ in splitter.pre_tokenize_str(line))
    pieces = {word: [word[0], *("##" + letter for letter in word[1:])] for word in sorted(counts)}
    vocabulary = dict.fromkeys(sorted({piece for parts in pieces.values() for piece in parts}))
    pairs: Counter[tuple[str, str]] = Counter()
    words_with: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # only theirs are counted anew

    def count(word: str, times: int) -> None:
        for pair in pairwise(pieces[word]):
            pairs[pair] += times
            words_with[pair].add(word)
            if not pairs[pair]:
                del pairs[pair]

    for word in pieces:
        count(word, counts[word])
    while len(vocabulary) < size and pairs:
        most = max(pairs.values())
        left, right = min(pair for pair, times in pairs.items() if times == most)
        merged = left + right.removeprefix("##")
        vocabulary[merged] = None
        for word in words_with.pop((left, right)):
            count(word, -counts[word])
            parts = pieces[word]
            for place in range(len(parts) - 1, 0, -1):
                if parts[place - 1 : place + 1] == [left, right]:
                    parts[place - 1 : place + 1] = [merged]
            count(word, counts[word])
    return list(vocabulary)


def write_tiny_bert(folder: Path, corpus: str) -> None:
    """Save the tokenizer and the configuration of a BERT small enough to pretrain in minutes."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *wordpiece_vocabulary(corpus, 3200)]
    # Cased: a capital is the plainest sign of a name, and stage two looks for names.
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=False, model_max_length=128)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        architectures=["BertForPreTraining"],
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,  # so small a model underfits: dropout would only slow it down
        attention_probs_dropout_prob=0.0,
    )
    config.save_pretrained(folder)


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description="Make the quickstart's sample data and tiny BERT.")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    data = args.output_dir / "data"
    data.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)
    firms, houses = make_firms(rng), make_houses(rng)
    taken = write_corpus(data / "corpus.txt", Newsroom(rng, firms, houses))
    write_labelled(data, args.seed, firms, houses, taken)
    write_tiny_bert(args.output_dir / "tiny-bert", (data / "corpus.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
