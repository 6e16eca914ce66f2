"""Words that open a sentence and are no names: what tells "Bombers attacked" from "Montgomery attacked".

Plain data: function words, and the common words that no suffix gives away. Lower case, in the singular: names.py
finds plurals and participles by it.
Misses: rarer words, which are then taken for names, and names that are also words here ("Bank", "Wood").
Cost: none.
"""

from __future__ import annotations

# Never names, wherever they stand: a title may be written with capitals throughout.
FUNCTION = frozenset(
    """
    a an the and or but nor so yet if of in on at by to from into onto over under with within without near after before
    during until since for against between among through across around along behind beyond above below off out up down
    as than that this these those which who whom whose what where when why how while although though because then there
    here not no only both either neither each every all some many most more few several he she it they we you i me him
    her us them his hers its their theirs our ours your yours my mine is are was were be been being do does did done
    has have had will would shall should can could may might must also even just such any another other others s t ve
    re ll d m via per vs etc ad bc bce ce am pm ok tv faq q
    """.split()
)

COMMON = frozenset(
    """
    able aboard about academic access accord according account actor actress acts actual add added additional address
    admiral adult advice aesthetic affect aftermath afternoon again age agent ago agricultural agriculture ahead aid air
    aircraft airman alarm alive alliance allow ally almost alone alongside already altogether always amateur ambassador
    ambush amid amidst amongst amount analysis analyst ancient anger angle angry animal annual answer anxiety anyone
    anywhere apart appeal appear approach aquatic area argue arithmetic arm armed armistice armor armour army arrange
    arrival arrived arrow art article artifact artillery artist artistic ashore aside ask asked aspect assault assistant
    asteroid astronomer atop attack attempt attn author autumn average avoid away back background bad band bank banker
    barge barley barrel base based basic basis battle beach became become beer began begin behavior belief believe belt
    benefit besides better bill billion biologist bird birth bishop bit bitter black blame blast block blockade blood
    blow boat body bold bomb bombing book boot border born bound bowl box boy brain branch brave bread break breath
    brick bridge brief bright bring broadcast broke brought budget build building built bullet bus bye cable cake call
    calm came camera camp campaign canal cannon cannot canyon capital captain capture captured car care career cargo
    cart case castle casualty cattle cause cavalry cave ceasefire central century ceremony certain chain chair chance
    chancellor change chaos chapter character characteristics charge chart charter cheap check cheese chemist chemistry
    chief child children choice cipher citizen city civilian claim class clay clear clever cliff climate clock close
    clothe cloud clue coal coalition coast coastal coat code coffee coin cold college colonel colonial colony color
    column come comet commander commercial common company compare comparison complete complex component composer
    compound computer concept concern concerning conflict consider considering constitutional contact contain
    contemporary content context continue contract contrary contrast control conventional convoy cook copper copy
    cordially core corn corps correct cost cotton country county coup courage course court cousin cover cowardice crack
    craft crater create crew criminal critic crop cross crossing crowd cultural culture cup current curve cut dam damage
    dark data date daughter dawn day dead deal dear death debate debris debt decade decree deep defeat defense define
    degree delay delegate demand dense departed depending describe desert design despite destroyed detail develop device
    diagnosis dictator died diesel differ different difficult digital diplomat direct director dirt dirty discipline
    discover discovery disease display distinct distinguish district ditch diverse diving dock doctor dog domestic done
    door doubt dozens drawing dream drop drought drug dry due dusk dust duty earlier earliest earthquake economic
    economy edge edict editor effect effort eight email emperor emphasis empty end ended enemy energy engine engineer
    enough entire environmental envoy envy equal equivalent era error escort espionage essay essential estimate ethics
    ethnic evacuation evening event ever everyone everywhere evolutionary exact example except exchange exile exist
    expected experimental expert explain export exposure external extreme eye eyewitness face fact factor factory
    failure faint faithfully false family famine fan far farm farmer fast fatal fate father favor fear feature federal
    fee feed feel feet fell felt female fewer field fierce fight fighting figure file fill film final financial find
    finish fire firm first fish fisherman fishermen five fixed flag flame flat fleet flight flood flour flying focus fog
    follow following food football force foreign forest form formal former fort fought found four fourth frame free
    freedom fresh friend fruit fuel full functional fundamental funds fur further furthermore future fwd galaxy game
    gang garden gas gate gave general genetic genre gentle geologist get ghost giant girl give given glacier glass
    global glossary go goal goat going gold good goodbye grain grass grave great greater greatest greed grew grief gross
    ground group grow growth guard guerrilla guest guide guilt gun gunfire gunner habit half hand harbor harbour hard
    harsh harvest hat hate hatred having head health hear hearing heart heat heavy held hello helmet help hence hereby
    hey hi high higher highest hill hint historian history hold hole holiday home honor honour hope horse hospital hotel
    hour how-ever however huge human humid hundreds hunger hurricane husband hypothesis ice icy idea image imagine
    impact important include including income increase indeed independent indicate individual industrial industry
    infantry influential infrastructure initial injury inland inn input insect inside instead intellectual intelligence
    interest internal invasion involve iron island issue jail jealousy jewel job joint journalist journey joy judge
    jungle junior keen keep kept key killed kind kindly king knight know knowledge known labor labour lack lady laid
    lake lamp land landing language large larger largest last late later latter launch law lawyer lay lead leader learn
    least leather leave lecture led left leg legal legislature length less lesson let letter level liberal liberation
    lie lieutenant life light lightning like line linear liquid list listen literary literature little live lived
    livestock lizard loan local located lock log logic long longer look loose lord lose losing loss lost loud love low
    lower lowest luck lunar lunch machine made magazine mail main mainstream maintain maize major make male mammal man
    manner map march marine market marshal mass match material mathematician mathematics matter maybe meal mean meant
    meanwhile measure meat mechanic medal media medic medicine medieval medium meet meeting member memo memory men
    mental merchant message met metal method midnight mild mile military milk million mind miner minister minor minus
    minute missile missionary mistake mixed mixture model modern monarch money monk month mood moral morale moreover
    morning mother mountain mouth move moved much mud multiple muscle museum music musician mutiny myth name named
    narrow natural nature naval navigator neat necessary need neighbour nest network never newer next night nine noble
    nobody noisy nomad none noon normal northern note noted novel novelist now nowhere nuclear number nun nurse oak
    object observer occupation occur odd offensive offer office officer official often oil okay old older oldest once
    opponent order organic origin original orphan outcome output outside overall overview owing own pact painter
    painting palace pale panic paper parallel parent park part particular partisan party passage past path patient
    patrol pattern peace peasant peninsula people per percent perform perhaps period periodic permanent person personal
    phase phenomena philosopher philosophy physician physicist physics pick picture piece pilgrim pilot pirate place
    plague plain plan planet planning plant play please plus poem poet poetry point poison police policy polite
    politician politics pollution poor popular port post potential power practice premier present president presidential
    pressure prevent price pride priest primary prince principal principle printer prior prison private prize problem
    process produce producer product professional professor profit program progress project prominent proof propaganda
    proper property prophet proponent protect protest proud provide province provincial public publisher pupil pure
    purpose put queen quick quiet quite radar radio raid rail railway rain rainfall raise random range rank rapid rare
    rate rather re reach read real rear reason rebel rebellion recall recent recognize record recruit reduce refer
    refugee regarding regards regime region regional release religion remain remember remove rent report represent
    reptile require rescue research reserve resident resource respect response rest result retreat return review revolt
    rewrite rice rich rifle right riot rise risk rival river road rock rocket role roof room root rope rough route
    rubber rubble rude ruin rule ruled rumour run rural rust sabotage safe said sailor saint sale salt salvage salvoe
    same sample sand sank saving saw say scale scholar school scientific scout script sculptor sea seafood search season
    seat second secrecy secret sector see seed seem seen send senior sense sent separate sergeant series servant serve
    service set seven severe shadow shallow shame share sharp sheep shell ship shipping shop short shortage show shown
    sibling side siege sign signal significant silent silk silver similar simple sincerely singer single sinking sister
    site six size skill skin sky slave slavery sleep slope slow small smaller smoke smooth snake snow social society
    soft software soil solar sold soldier solid solve somebody someone sometimes somewhat somewhere son song soon sorrow
    sorry sort soul sound source southern space speak speaking special species specific speech speed spent spice spirit
    spiritual split spoken sport spread spy squad squadron square stage stair stalemate standard star start starting
    state statistics statue status stay steady steam steel steep step stiff still stock stone stop store storm story
    stout strange strategy straw stream street strength strict strike strong stronger structure struggle stubborn
    student study style subject submarine submit subsequent substantial suburb success sudden sufficient sugar suggest
    suicide summarise summarize summary summer sunk sunrise sunset supply support sure surface surgeon surprise
    surrender survey swamp switch sword symbol symptom syndrome synthesis system table take taken talk tall tank tape
    target taught tax tea teacher teaching team tear technique teeth telegram tell temperature ten tend tense tension
    tent term terrestrial territory test text thank theory thereafter thereby therefore therein thick thin thing think
    third thought thousands three thrice throughout thunder thus tide tight till timber time timeline tin tiny tired
    title tobacco today together told tomorrow tonight too took tool top topic torpedoe total tough town track trade
    trader traditional tragedy train training tram tramp transfer translate translator transport travel treasure treaty
    tree trench trial tribe trick tried troop truce truck true trust truth try tunnel turn turnout tutor twice twin type
    typhus ugly understood union unique unit universal universe unknown unlike upon upper uprising urban urgent usage
    use user using vague vain valley value van variety vary vast vehicle versus very vessel veteran via victim victory
    video view village violent visit visual vital volcano vote voted wage wagon wait wall want war warehouse warlord
    warm warning watch water wave way weak weaker wealth weapon weather wedding week weight welcome well went wet
    whatever wheat wheel whenever wherea wherever whether whichever whilst whoever whole wide widespread widow wild win
    wind wine winning winter wire wise wish withdrawal witness wive wolve woman women won wood wooden wool word work
    worker worldwide worry worse worst wound wounded wreck write writer writing written wrong wrote yard year yes
    yesterday young yours youth zero zinc
    """.split()
)
