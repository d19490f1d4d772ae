for (const sound of document.querySelectorAll('audio'))
  sound.addEventListener('play', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== sound) other.pause();
  });

for (const look of document.querySelectorAll('.look')) {
  const data = JSON.parse(look.querySelector('script').textContent);
  const weights = Uint8Array.from(atob(data.weights), c => c.charCodeAt(0));
  const units = [];
  for (const unit of look.querySelectorAll('[data-u]')) units[+unit.dataset.u] = unit;
  const n = units.length, lanes = [...look.querySelectorAll('.lane')];
  const laneOf = units.map(unit => unit.closest('.lane'));
  const status = look.querySelector('[role=status]'), back = look.querySelector('button');
  let pinned = null, shown = null;
  const way = () => look.querySelector('.modes input:checked').value;
  const percent = x => (x && x < .0995 ? (100 * x).toFixed(1) : Math.round(100 * x)) + '\u202f%';
  const name = u => '\u201c' + units[u].getAttribute('aria-label') + '\u201d';
  const heard = (q, k) => weights[q * n + k] / 255 * data.peaks[q][data.of[k]];

  function valuesOf(u) {
    if (u === null) return data.answer;
    return units.map((_, other) => way() === 'to' ? heard(u, other) : heard(other, u));
  }

  function draw(u) {
    const values = valuesOf(u), said = [];
    shown = u;
    for (const lane of lanes) {
      const here = units.map((_, i) => i).filter(i => laneOf[i] === lane);
      const best = here.reduce((a, b) => values[b] > values[a] ? b : a);
      const most = values[best] || 1, sum = here.reduce((total, i) => total + values[i], 0);
      for (const i of here) {
        units[i].style.setProperty('--w', (values[i] / most).toFixed(3));
        units[i].classList.toggle('on', values[i] / most >= .6);
      }
      drawFilm(lane, values);
      const part = u !== null && way() === 'from' ? sum / here.length : sum;
      lane.querySelector('.bar').style.setProperty('--v', part);
      lane.querySelector('.share').textContent = percent(part) + (u === null ? ' of the answer'
        : way() === 'to' ? ' of its attention' : ' of its attention goes there');
      said.push(percent(part) + ' ' + data.names[data.of[best]]
        + (here.length > 1 ? ' (most: ' + name(best) + ')' : ''));
    }
    for (const unit of units) unit.setAttribute('aria-selected', unit === units[u] ? 'true' : 'false');
    status.textContent = u === null ? data.says : name(u)
      + (way() === 'to' ? ' listens to: ' : ' is listened to by: ') + said.join('; ') + '.';
    back.hidden = pinned === null;
  }

  function drawFilm(lane, values) {
    const path = lane.querySelector('.curve path');
    if (!path) return;
    const sums = [...lane.querySelectorAll('.frame')].map(frame =>
      [...frame.querySelectorAll('[data-u]')].reduce((total, unit) => total + values[unit.dataset.u], 0));
    const most = Math.max(...sums) || 1, y = sums.map(sum => (1 - .94 * sum / most).toFixed(3));
    path.setAttribute('d', `M0 1L0 ${y[0]}L` + y.map((h, i) => `${i + .5} ${h}`).join('L')
      + `L${y.length} ${y.at(-1)}L${y.length} 1Z`);
  }

  function choose(u) {
    pinned = u;
    draw(u);
  }

  const unitOf = target => { const found = target.closest?.('[data-u]'); return found ? +found.dataset.u : null };
  const sound = look.querySelector('audio');
  look.addEventListener('pointerover', e => {
    if (e.pointerType !== 'mouse') return;
    const u = unitOf(e.target) ?? pinned;
    if (u !== shown) draw(u);
  });
  look.addEventListener('pointerleave', () => shown !== pinned && draw(pinned));
  look.addEventListener('click', e => {
    const u = unitOf(e.target);
    if (u === null) return;
    choose(u === pinned ? null : u);
    if (sound && laneOf[u].contains(sound)) sound.currentTime = +units[u].dataset.t;
  });
  look.addEventListener('focusin', e => {
    const u = unitOf(e.target);
    if (u !== null && e.target.matches(':focus-visible')) choose(u);
  });
  look.addEventListener('keydown', e => {
    const u = unitOf(e.target);
    if (e.key === 'Escape') return choose(null);
    if (u === null) return;
    const box = units[u].parentElement, group = [...box.children];
    const wide = +getComputedStyle(box).getPropertyValue('--cols') || 1, at = group.indexOf(units[u]);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[e.key];
    const next = e.key === 'Home' ? 0 : e.key === 'End' ? group.length - 1 : at + step;
    if (Number.isNaN(next)) return;
    e.preventDefault();
    const frames = [...laneOf[u].querySelectorAll('[role=listbox]')];
    const beside = frames[frames.indexOf(box) + Math.sign(step)];
    const goal = group[next] ?? (beside && (step > 0 ? beside.firstElementChild : beside.lastElementChild));
    if (!goal) return;
    units[u].tabIndex = -1;
    goal.tabIndex = 0;
    goal.focus();
  });
  back.addEventListener('click', () => choose(null));
  for (const mode of look.querySelectorAll('.modes input')) mode.addEventListener('change', () => draw(pinned));

  if (sound) {
    const words = units.filter((_, i) => laneOf[i].classList.contains('text'));
    const strip = sound.closest('.lane').querySelector('.strip'), film = look.querySelector('.film');
    const follow = () => {
      const t = sound.currentTime, live = !sound.paused || t > 0;
      strip.style.setProperty('--at', t / strip.dataset.seconds);
      strip.classList.toggle('live', live);
      if (film) {
        const times = [...film.querySelectorAll('.frame')].map(frame => +frame.dataset.t);
        const step = times[1] - times[0] || 1;
        film.style.setProperty('--at', Math.min(1, t / (step * times.length)));
        film.classList.toggle('live', live);
      }
      const timed = new Set(words.map(word => word.dataset.t)).size > 1;
      const now = timed && live ? words.findLast(word => +word.dataset.t <= t) : null;
      for (const word of words) word.classList.toggle('now', word === now);
      if (!sound.paused) requestAnimationFrame(follow);
    };
    for (const event of ['play', 'seeked', 'pause']) sound.addEventListener(event, follow);
  }
}
