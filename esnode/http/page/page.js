// The page at /: the document of /status, kept fresh by /events; charts begin with /recent.
// What comes from a document is set as text, never as HTML. What is null is a dash.
'use strict';
(() => {
const DASH = '–', SPAN = 15 * 60e3, WIDTH = 300, HEIGHT = 60, SHOWN = 20, KEPT = 200, BACK = 60e3, UNSEEN = 20e3;

// Texts.

const NUMBERS = [0, 1, 2].map(digits => new Intl.NumberFormat('en',
  {minimumFractionDigits: digits, maximumFractionDigits: digits}));
const CLOCK = new Intl.DateTimeFormat('en-GB', {timeStyle: 'medium'});
const DATE = new Intl.DateTimeFormat('en-GB', {dateStyle: 'medium', timeStyle: 'medium'});
const known = value => typeof value === 'number' && Number.isFinite(value);
const number = (value, digits = 0) => known(value) ? NUMBERS[digits].format(value) : DASH;
const unit = (value, name, digits = 0) => known(value) ? `${number(value, digits)}\u00a0${name}` : DASH;
const scaled = (value, names, base) => {
  if (!known(value)) return DASH;
  let step = 0;
  while (Math.abs(value) >= base * 0.9995 && step < names.length - 1) { value /= base; step++; }
  return unit(value, names[step], step && Math.abs(value) < 100 ? 1 : 0);
};
const AS = {
  percent: value => unit(value, '%', value && value < 9.95 ? 1 : 0),
  bytes: value => scaled(value, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'], 1024),
  rate: value => scaled(value, ['B/s', 'kB/s', 'MB/s', 'GB/s', 'TB/s'], 1000),
  watts: value => unit(value, 'W'),
  celsius: value => unit(value, '°C'),
};
/** One of another, with the unit once where it is the same. */
const of = (as, part, whole) => {
  const [some, all] = [as(part), as(whole)];
  const [value, name] = some.split('\u00a0');
  return `${name && all.endsWith(`\u00a0${name}`) ? value : some} of ${all}`;
};
const share = (part, whole) => known(part) && whole > 0 ? 100 * part / whole : null;
const time = ms => !known(ms) ? DASH
  : (Math.abs(Date.now() - ms) < 12 * 3600e3 ? CLOCK : DATE).format(ms);
const span = seconds => {
  if (!known(seconds)) return DASH;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes % 60} min` : minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
};
const words = (...parts) => parts.filter(Boolean).join(' · ');
const name = text => text == null || text === '' ? DASH : String(text);
const plain = text => String(text).replaceAll('_', ' ');
const count = (n, one, many = one + 's') => `${number(n)} ${n === 1 ? one : many}`;
const yes = (value, on, off) => value == null ? DASH : value ? on : off;

// Elements.

const put = (node, text) => {
  if (node.shown !== text) node.textContent = node.shown = text;
};
const show = (node, is) => { if (node.hidden === is) node.hidden = !is; };
const pill = (node, text, kind) => {
  put(node, text);
  if (node.kind !== kind) node.className = `pill ${node.kind = kind}`;
};
const make = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) put(node, text);
  if (className) node.className = className;
  return node;
};
const parts = root => Object.fromEntries(
  [...root.querySelectorAll('[data-v]')].map(node => [node.dataset.v, node]));
const page = parts(document);

/** Has the children of a node be those of a list, made anew only where the list is longer. */
const each = (parent, list, create, fill) => {
  while (parent.children.length > list.length) parent.lastElementChild.remove();
  list.forEach((item, i) => fill(parent.children[i] || parent.appendChild(create()), item));
};

/** A table below a summary, filled while it is open. */
class Table {
  constructor(key, columns) {
    this.details = document.querySelector(`[data-table=${key}]`);
    this.aside = this.details.querySelector('.aside');
    this.columns = columns;
    const table = make('table'), head = table.createTHead().insertRow();
    for (const [title] of columns) {
      head.append(make('th', title));
      head.lastChild.scope = 'col';
    }
    this.body = table.createTBody();
    const scroll = make('div', undefined, 'scroll');
    scroll.tabIndex = 0;
    scroll.setAttribute('role', 'region');
    scroll.setAttribute('aria-label', this.details.querySelector('summary').firstChild.data.trim());
    scroll.append(table);
    this.details.append(scroll);
    this.details.addEventListener('toggle', () => this.fill());
  }
  set(rows, aside) {
    this.rows = rows;
    show(this.details, rows != null && rows.length > 0);
    put(this.aside, aside ?? (rows ? String(rows.length) : ''));
    this.fill();
  }
  fill() {
    if (!this.details.open || !this.rows) return;
    each(this.body, this.rows, () => {
      const row = make('tr');
      for (const [title, , wide] of this.columns) row.append(make('td', undefined, wide && 'wide'));
      return row;
    }, (row, item) => this.columns.forEach(([, cell], i) => put(row.cells[i], cell(item))));
  }
}

const TABLES = {
  disks: new Table('disks', [
    ['Mount', d => name(d.mount), true], ['Device', d => name(d.device)],
    ['Used', d => AS.bytes(d.used_bytes)], ['Of', d => AS.bytes(d.total_bytes)],
    ['Full', d => AS.percent(share(d.used_bytes, d.total_bytes))],
    ['Read', d => AS.rate(d.read_bytes_per_sec)], ['Written', d => AS.rate(d.written_bytes_per_sec)],
    ['Busy', d => AS.percent(d.busy_percent)],
    ['Read takes', d => unit(known(d.read_latency_seconds) ? d.read_latency_seconds * 1e3 : null, 'ms', 2)],
    ['Write takes', d => unit(known(d.write_latency_seconds) ? d.write_latency_seconds * 1e3 : null, 'ms', 2)],
  ]),
  interfaces: new Table('interfaces', [
    ['Interface', i => name(i.iface)], ['State', i => yes(i.up, 'up', 'down')],
    ['Speed', i => AS.rate(i.speed_bytes)], ['In', i => AS.rate(i.rx_bytes_per_sec)],
    ['Out', i => AS.rate(i.tx_bytes_per_sec)], ['Drops', i => unit(i.drops_per_sec, '/s', 1)],
  ]),
  infiniband: new Table('infiniband', [
    ['Port', p => `${name(p.device)} ${name(p.port)}`], ['State', p => name(p.state)],
    ['Rate', p => AS.rate(p.rate_bytes)], ['In', p => AS.rate(p.rx_bytes_per_sec)],
    ['Out', p => AS.rate(p.tx_bytes_per_sec)], ['Errors', p => unit(p.errors_per_sec, '/s', 1)],
  ]),
  temperatures: new Table('temperatures', [
    ['Package', t => name(t.package)], ['Sensor', t => name(t.sensor)],
    ['Temperature', t => AS.celsius(t.celsius)],
  ]),
  collectors: new Table('collectors', [
    ['Collector', c => name(c.name)],
    ['State', c => c.enabled ? yes(c.up, 'up', 'not up') : 'turned off'],
    ['Reason', c => c.reason ?? '', true],
  ]),
  errors: new Table('errors', [
    ['When', e => time(e.unix_ms)], ['Collector', e => name(e.collector)],
    ['What', e => name(e.message), true],
  ]),
};

// The last 15 minutes: points in time, and a list of values for each line of a chart.

const NODE = ['cpu_util_percent', 'mem_used_bytes', 'disk_read_bytes_per_sec',
  'disk_written_bytes_per_sec', 'net_rx_bytes_per_sec', 'net_tx_bytes_per_sec',
  'infiniband_rx_bytes_per_sec', 'infiniband_tx_bytes_per_sec', 'node_power_watts'];
const GPU = ['util_percent', 'memory_used_bytes', 'power_watts', 'temperature_celsius'];
const past = {step: 5e3, times: [], lines: new Map()};
const key = gpu => gpu.uuid ?? gpu.gpu;

const line = id => {
  let values = past.lines.get(id);
  if (!values) past.lines.set(id, values = new Array(past.times.length).fill(null));
  return values;
};

const add = status => {
  const now = status.last_scrape_unix_ms, {times, lines} = past;
  if (now < times.at(-1) - BACK) {  // the node's clock was put back: begin anew, as /recent does
    times.length = 0;
    for (const values of lines.values()) values.length = 0;
  }
  if (!known(now) || now < (times.at(-1) ?? 0) + 0.9 * past.step) return false;
  for (const id of NODE) line(id);
  for (const gpu of status.gpus ?? []) for (const each of GPU) line(`${key(gpu)} ${each}`);
  times.push(now);
  for (const values of lines.values()) values.push(null);
  const last = times.length - 1;
  for (const id of NODE) lines.get(id)[last] = status[id] ?? null;
  for (const gpu of status.gpus ?? [])
    for (const each of GPU) lines.get(`${key(gpu)} ${each}`)[last] = gpu[each];
  const old = times.findIndex(each => each >= now - SPAN);
  if (old > 0) {
    times.splice(0, old);
    for (const [id, values] of lines) {
      values.splice(0, old);
      if (values.every(value => value === null) && id.includes(' ')) lines.delete(id);
    }
  }
  return true;
};

/** Takes over what the agent remembers, and keeps what is older or newer. */
const recall = recent => {
  const {times: old, lines: before} = past, {unix_ms: times} = recent;
  const early = old.filter(each => each < (times[0] ?? Infinity)).length;
  const late = old.filter(each => !(each > (times.at(-1) ?? Infinity))).length;
  past.step = recent.step_seconds * 1e3;
  past.times = [...old.slice(0, early), ...times, ...old.slice(late)];
  past.lines = new Map();
  const take = (id, values) => {
    const own = before.get(id) ?? old.map(() => null);
    past.lines.set(id, [...own.slice(0, early), ...values, ...own.slice(late)]);
  };
  for (const id of NODE) if (recent[id]) take(id, recent[id]);
  for (const gpu of recent.gpus) for (const each of GPU) take(`${key(gpu)} ${each}`, gpu[each]);
  for (const id of before.keys()) if (!past.lines.has(id)) take(id, times.map(() => null));
};

// Charts.

const nice = value => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map(each => each * power).find(each => each >= value);
};

const charts = new Set();
const watched = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    target.chart.visible = isIntersecting;
    if (isIntersecting) target.chart.draw();
  }
}, {rootMargin: '100px'});

/** One or two lines over the last 15 minutes; `top` is the value of the upper edge, if that is known. */
class Chart {
  constructor(svg, ids, top, as, scale) {
    Object.assign(this, {svg, ids, top, as, scale, visible: false});
    svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('aria-hidden', 'true');
    this.area = this.path('area');
    this.paths = ids.map((_, i) => this.path(i ? 'second' : 'first'));
    if (scale) scale.append(make('span'), make('span'));
    svg.chart = this;
    charts.add(this);
    watched.observe(svg);
  }
  path(className) {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('class', className);
    return this.svg.appendChild(path);
  }
  remove() {
    charts.delete(this);
    watched.unobserve(this.svg);
  }
  draw() {
    if (!this.visible) return;
    const {times} = past, all = this.ids.map(id => past.lines.get(id) ?? []);
    let low = Infinity, high = -Infinity;
    for (const values of all) for (const value of values) if (value !== null) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const any = high >= low, given = this.top();
    const top = given > 0 ? Math.max(given, any ? high : 0) : nice(Math.max(any ? high : 0, this.as === AS.rate ? 1000 : 10));
    all.forEach((values, i) => this.trace(times, values, top, this.paths[i], i ? null : this.area));
    if (this.scale) {
      const [left, right] = this.scale.children;
      put(left, !any ? '15 min: no readings' : all.length > 1 ? `15 min: up to ${this.as(high)}`
        : `15 min: ${[...new Set([this.as(low), this.as(high)])].join(' to ')}`);
      put(right, any ? `top is ${this.as(top)}` : '');
    }
  }
  /** A line with gaps where nothing was read, and what is below it. */
  trace(times, values, top, path, area) {
    const end = times.at(-1) ?? 0, gap = 3.5 * past.step;
    let line = '', below = '', first = null, last = null, before = -Infinity;
    const close = () => { if (first !== null) below += `V${HEIGHT}H${first}Z`; };
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (value === null) { before = -Infinity; continue; }
      const x = Math.round((times[i] - end + SPAN) / SPAN * WIDTH * 10) / 10;
      if (x === last && times[i] - before <= gap) continue;
      const y = Math.round((1 - value / top) * (HEIGHT - 2) * 10) / 10 + 1;
      if (times[i] - before > gap) {
        if (area) { close(); below += `M${x} ${HEIGHT}V${y}`; first = x; }
        line += `M${x} ${y}h.1`;
      } else {
        line += `L${x} ${y}`;
        if (area) below += `L${x} ${y}`;
      }
      before = times[i];
      last = x;
    }
    if (area) { close(); area.setAttribute('d', below); }
    path.setAttribute('d', line);
  }
}

const draw = () => { if (!document.hidden) for (const chart of charts) chart.draw(); };
let drawing = false;
/** Draws with the next frame: of a tab that nobody sees none comes, and they would pile up. */
const redraw = () => {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; draw(); });
};

let newest = {};
for (const svg of document.querySelectorAll('svg[data-chart]')) {
  const ids = svg.dataset.chart.split(' '), {top = ''} = svg.dataset;
  new Chart(svg, ids, () => known(+top) ? +top : newest[top], AS[svg.dataset.as],
    document.querySelector(`[data-scale=${ids[0]}]`));
}

// GPUs.

const cards = new Map();
const template = document.getElementById('card').content.firstElementChild;

class Card {
  constructor(id) {
    this.node = template.cloneNode(true);
    this.parts = parts(this.node);
    this.node.querySelector('h3').id = `card-${++Card.made}`;
    this.node.setAttribute('aria-labelledby', `card-${Card.made}`);
    const tops = [() => 100, () => this.gpu.memory_total_bytes, () => this.gpu.power_limit_watts, () => 100];
    this.charts = [...this.node.querySelectorAll('svg')].map((svg, i) =>
      new Chart(svg, [`${id} ${GPU[i]}`], tops[i], AS.percent));
    this.parts.mig.addEventListener('toggle', () => this.instances());
    this.parts.about.addEventListener('toggle', () => this.more());
  }
  set(gpu, reasons) {
    this.gpu = gpu;
    const {parts: p} = this, {health: h, topo: t} = gpu;
    put(p.title, `GPU ${gpu.gpu}`);
    put(p.name, name(gpu.name));
    const needs = h.recovery_action && h.recovery_action !== 'none';
    const degraded = reasons.some(reason => reason.startsWith(`GPU ${gpu.gpu}:`));
    if (gpu.stuck) pill(p.pill, 'stuck', 'bad');
    else if (gpu.up === false) pill(p.pill, 'down', 'bad');
    else if (needs) pill(p.pill, 'needs recovery', 'bad');
    else if (degraded) pill(p.pill, 'degraded', 'warn');
    else if (gpu.up) pill(p.pill, 'up', 'ok');
    else pill(p.pill, 'not known', '');
    put(p.util, AS.percent(gpu.util_percent));
    put(p.memory, of(AS.bytes, gpu.memory_used_bytes, gpu.memory_total_bytes));
    put(p.power, of(AS.watts, gpu.power_watts, gpu.power_limit_watts));
    put(p.temperature, AS.celsius(gpu.temperature_celsius));
    put(p.throttle, !h.throttle_reasons ? DASH
      : h.throttle_reasons.map(plain).join(', ') || 'none');
    p.throttle.className = gpu.thermal_throttle ? 'warn' : '';
    put(p.ecc, h.ecc_mode === false ? 'ECC is off'
      : `${number(h.ecc_corrected_aggregate)} corrected, ${number(h.ecc_uncorrected_aggregate)} not`);
    p.ecc.className = h.ecc_uncorrected_aggregate > 0 ? 'bad' : '';
    put(p.recovery, h.recovery_action ? plain(h.recovery_action) : DASH);
    p.recovery.className = needs ? 'bad' : '';
    show(p.xid_row, h.last_xid != null);
    if (h.last_xid) put(p.xid, words(`${h.last_xid.code}${h.last_xid.meaning ? `: ${h.last_xid.meaning}` : ''}`,
      h.last_xid.action, h.last_xid.unix_ms && time(h.last_xid.unix_ms)));
    this.more();
    const devices = gpu.mig_tree.devices ?? [];
    show(p.mig, devices.length > 0);
    if (devices.length) {
      const used = devices.map(each => share(each.memory_used_bytes, each.memory_total_bytes));
      const busy = devices.map(each => each.util_percent).filter(known);
      put(p.mig_sum, words(count(devices.length, 'MIG instance'),
        busy.length > 0 && `busiest ${AS.percent(Math.max(...busy))}`));
      each(p.strip, used, () => make('i'), (node, value) => {
        const text = `${Math.round(value ?? 0)}%`;
        if (node.share !== text) node.style.setProperty('--share', node.share = text);
      });
      this.instances();
    }
  }
  more() {
    const {gpu, parts: p} = this, {health: h, topo: t, identity: i, nvlink: {links}} = gpu;
    if (!p.about.open) return;
    put(p.clocks, words(`SM ${unit(gpu.clock_sm_mhz, 'MHz')}`, `memory ${unit(gpu.clock_mem_mhz, 'MHz')}`,
      known(h.pstate) && `P${h.pstate}`, known(gpu.fan_percent) && `fan ${AS.percent(gpu.fan_percent)}`));
    put(p.links, words(`PCIe ${number(t.pci_link_gen)} ×${number(t.pci_link_width)} of ${
      number(t.pci_link_gen_max)} ×${number(t.pci_link_width_max)}`,
    links?.length > 0 && `NVLink ${links.filter(each => each.up).length} of ${links.length} up`));
    put(p.memory_more, words(AS.celsius(gpu.memory_temperature_celsius),
      `busy ${AS.percent(gpu.memory_util_percent)}`, `${number(h.remapped_rows)} rows remapped`,
      `${number(h.retired_pages)} pages retired`));
    put(p.engines, `encoder ${AS.percent(h.encoder_util_percent)}, decoder ${AS.percent(h.decoder_util_percent)}`);
    put(p.driver, words(name(i.driver_version), `CUDA ${name(i.cuda_driver_version)}`));
    put(p.bus, name(i.pci_bus_id));
    put(p.uuid, name(gpu.uuid));
  }
  instances() {
    const {mig, instances} = this.parts;
    if (!mig.open) return;
    each(instances, this.gpu.mig_tree.devices ?? [], () => {
      const row = make('tr');
      for (let i = 0; i < 4; i++) row.append(make('td'));
      return row;
    }, ({cells}, device) => {
      put(cells[0], `${device.gi}/${device.ci}`);
      put(cells[1], name(device.profile));
      put(cells[2], of(AS.bytes, device.memory_used_bytes, device.memory_total_bytes));
      put(cells[3], AS.percent(device.util_percent));
    });
  }
}
Card.made = 0;

page.unfold.addEventListener('click', () => {
  const open = page.unfold.getAttribute('aria-expanded') !== 'true';
  for (const {parts: {mig}} of cards.values()) mig.open = open;
  page.unfold.setAttribute('aria-expanded', open);
  put(page.unfold, open ? 'Close all MIG instances' : 'Open all MIG instances');
});

const showGpus = (gpus, reasons) => {
  const ids = new Set((gpus ?? []).map(key));
  for (const [id, card] of cards) if (!ids.has(id)) {
    card.charts.forEach(chart => chart.remove());
    card.node.remove();
    cards.delete(id);
  }
  (gpus ?? []).forEach((gpu, i) => {
    let card = cards.get(key(gpu));
    if (!card) cards.set(key(gpu), card = new Card(key(gpu)));
    card.set(gpu, reasons);
    if (page.cards.children[i] !== card.node) page.cards.insertBefore(card.node, page.cards.children[i] ?? null);
  });
  if (!gpus) return put(page.gpus_more, 'GPUs are not read.');
  const total = values => values.every(known) ? values.reduce((a, b) => a + b, 0) : null;
  const devices = gpus.reduce((sum, gpu) => sum + (gpu.mig_tree.devices?.length ?? 0), 0);
  const utils = gpus.map(gpu => gpu.util_percent).filter(known);
  put(page.gpus_more, !gpus.length ? 'No GPU here.' : words(
    `${gpus.filter(gpu => gpu.up).length} of ${gpus.length} up`,
    utils.length > 0 && `${AS.percent(total(utils) / utils.length)} used on average`,
    `${AS.watts(total(gpus.map(gpu => gpu.power_watts)))} in all`,
    devices > 0 && count(devices, 'MIG instance')));
  show(page.unfold, devices > 0);
};

// The document.

const most = (list, value) => (list ?? []).reduce(
  (best, each) => known(value(each)) && !(best && value(best) >= value(each)) ? each : best, null);

/** How many are up, of those that tell; a dash where none does. */
const up = (list, one) => {
  const told = list.filter(each => each.up != null);
  return told.length ? `${number(told.filter(each => each.up).length)} of ${count(told.length, one)}`
    : `${DASH} of ${count(list.length, one)}`;
};

const showStatus = status => {
  newest = status;
  const s = status, reasons = s.degradation_reasons ?? [];
  put(page.hostname, name(s.hostname));
  const title = `${name(s.hostname)} · ESNODE-Core`;
  if (document.title !== title) document.title = title;
  if (!s.healthy) pill(page.verdict, 'Not healthy', 'bad');
  else if (s.degradation_score > 0) pill(page.verdict, 'Degraded', 'warn');
  else if (s.degradation_score === 0) pill(page.verdict, 'No degradation', 'ok');
  else pill(page.verdict, 'Not known yet', '');
  put(page.score, !s.healthy ? 'The host has not been read for some time.'
    : s.degradation_score > 0 ? `Score ${number(s.degradation_score)}` : '');
  show(page.reasons, reasons.length > 0);
  each(page.reasons, reasons, () => make('li'), put);
  put(page.facts, words(s.kernel && `Linux ${s.kernel}`, `up ${span(s.uptime_seconds)}`,
    s.mode === 'managed' ? `managed by ${name(s.managed.server)}` : s.mode));

  put(page.cpu, AS.percent(s.cpu_util_percent));
  put(page.load, `${number(s.cpu_cores)} CPUs · load ${[s.load_avg_1m, s.load_avg_5m, s.load_avg_15m]
    .map(load => number(load, 2)).join(', ')}`);
  put(page.memory, AS.percent(share(s.mem_used_bytes, s.mem_total_bytes)));
  put(page.memory_more, `${of(AS.bytes, s.mem_used_bytes, s.mem_total_bytes)} · swap `
    + (s.swap_total_bytes === 0 ? 'none' : of(AS.bytes, s.swap_used_bytes, s.swap_total_bytes)));
  put(page.disk_read, AS.rate(s.disk_read_bytes_per_sec));
  put(page.disk_written, AS.rate(s.disk_written_bytes_per_sec));
  const busy = most(s.disks, disk => disk.busy_percent);
  const full = most(s.disks, disk => share(disk.used_bytes, disk.total_bytes));
  put(page.disk_more, words(`root ${AS.percent(share(s.disk_root_used_bytes, s.disk_root_total_bytes))} full`,
    full && full.mount !== '/' && `${full.mount} ${AS.percent(share(full.used_bytes, full.total_bytes))}`,
    busy && `${name(busy.device)} busy ${AS.percent(busy.busy_percent)}`));
  TABLES.disks.set(s.disks);
  put(page.nic, name(s.primary_nic));
  put(page.net_rx, AS.rate(s.net_rx_bytes_per_sec));
  put(page.net_tx, AS.rate(s.net_tx_bytes_per_sec));
  put(page.net_more, words(`drops ${unit(s.net_drops_per_sec, '/s', 1)}`,
    s.interfaces && `${up(s.interfaces, 'interface')} up`));
  TABLES.interfaces.set(s.interfaces);
  const ports = s.infiniband ?? [];
  show(page.ib, ports.length > 0);
  put(page.ib_rx, AS.rate(s.infiniband_rx_bytes_per_sec));
  put(page.ib_tx, AS.rate(s.infiniband_tx_bytes_per_sec));
  put(page.ib_more, `${up(ports, 'port')} active`);
  TABLES.infiniband.set(ports);
  put(page.power, AS.watts(s.node_power_watts));
  const packages = s.cpu_package_power_watts ?? [], hottest = most(s.cpu_temperatures, each => each.celsius);
  put(page.power_more, words(
    `CPUs ${packages.length ? packages.map(each => AS.watts(each.watts)).join(' + ') : DASH}`,
    `hottest CPU sensor ${AS.celsius(hottest?.celsius)}`));
  TABLES.temperatures.set(s.cpu_temperatures);

  showGpus(s.gpus, reasons);

  const {agent, tsdb} = s, down = agent.collectors.filter(each => each.enabled && each.up === false);
  put(page.agent, words(`ESNODE-Core ${name(agent.version)}`, `running ${span(agent.uptime_seconds)}`,
    `CPU ${unit(agent.cpu_percent, '%', 2)}`, `memory ${AS.bytes(agent.resident_bytes)}`,
    tsdb.enabled ? `history ${AS.bytes(tsdb.bytes)}${known(tsdb.oldest_unix_ms) ? ` since ${time(tsdb.oldest_unix_ms)}` : ''}`
      : 'history is off',
    s.mode === 'managed' && `controller: ${name(s.managed.state)}, last heard ${time(s.managed.last_contact_unix_ms)}`,
    s.orchestrator.enabled && 'orchestrator is on'));
  TABLES.collectors.set(agent.collectors, `${agent.collectors.length}, of which ${down.length} not up`);
  TABLES.errors.set(s.last_errors);
};

// Events.

const events = [];
let listed = SHOWN;
let opened = false;  // what comes with the first status are events that the agent remembers
const say = text => { document.getElementById('says').textContent = text; };

const describe = (kind, data) => {
  if (kind === 'degradation') {
    const {labels} = data, flag = data.flag === 'gpu_up' ? 'no answer'
      : plain(name(data.flag).replace('_degradation', ''));
    const where = labels?.gpu != null ? `GPU ${labels.gpu}` : Object.values(labels ?? {}).join(' ');
    return {when: data.unix_ms, what: `${data.degraded ? 'Degraded' : 'No longer degraded'}: ${flag}`,
      kind: data.degraded ? 'warn' : 'ok', where, text: data.reason};
  }
  const what = data.kind === 'xid' || data.code != null && !data.kind
    ? `Xid ${data.code}` : words(plain(name(data.kind)), data.code != null && String(data.code));
  return {when: data.unix_ms, what, kind: /xid|ecc/.test(data.kind ?? 'xid') ? 'bad' : '', where: words(data.gpu != null && `GPU ${data.gpu}`, data.pci_bus_id),
    text: data.meaning ?? data.text, action: data.action};
};

const showEvents = () => {
  show(page.quiet, !events.length);
  each(page.events, events.slice(0, listed), () => {
    const item = make('li');
    item.append(make('time'), ' ', make('strong'), ' ', make('span'), make('p'), make('p', undefined, 'small'));
    return item;
  }, (item, event) => {
    const [when, what, where, text, action] = item.children;
    put(when, time(event.when));
    if (known(event.when)) when.dateTime = new Date(event.when).toISOString();
    put(what, event.what);
    what.className = event.kind;
    put(where, event.where ?? '');
    put(text, event.text ?? '');
    show(text, Boolean(event.text));
    put(action, event.action ? `What to do: ${event.action}` : '');
    show(action, Boolean(event.action));
  });
  show(page.older, events.length > listed);
};
page.older.addEventListener('click', () => { listed = KEPT; showEvents(); });

let waiting = false;
const take = (kind, data) => {
  const event = describe(kind, data);
  events.unshift(event);
  events.length = Math.min(events.length, KEPT);
  if (opened) say(words(event.where, event.what, event.text));
  if (!waiting) {  // many may come at once
    waiting = true;
    setTimeout(() => { waiting = false; showEvents(); }, 50);
  }
};

// The stream. The browser comes back by itself to one that broke, with the number of the last event;
// to one that was refused it does not, and of one that is silent it does not know.

// Without the user and password that may be in the address: with them nothing may be fetched.
const address = path => new URL(path, location.origin + location.pathname).href;
const SILENT = 'the agent does not answer', REFUSED = 'it is refused, as when too many follow';
let source, number_of_last = '0', heard = 0, live = false, since = 0, again = 0, timer;

const arrived = status => {
  showStatus(status);
  if (add(status)) redraw();
  put(page.when, `values of ${time(status.last_scrape_unix_ms)}`);
};

const fetched = async path => {
  const answer = await fetch(address(path), {cache: 'no-store', signal: AbortSignal.timeout?.(20e3)})
    .catch(() => { throw new Error(SILENT); });
  if (!answer.ok) throw new Error(answer.status === 401
    ? 'the agent asks for a password or a token: load the page again'
    : `/${path} is answered with ${answer.status}`);
  return answer.json();
};

const remember = () => fetched('recent').then(recent => { recall(recent); draw(); }).catch(() => {});

const found = () => {
  heard = Date.now();
  again = 0;
  if (live) return;
  const is_back = since > 0;
  live = true;
  pill(page.link, 'Live', 'ok');
  show(document.getElementById('lost'), false);
  document.body.classList.remove('stale');
  if (is_back) {
    say('Live again');
    remember();  // and how far apart ticks are now
  }
  since = 0;
};

const lose = why => {
  if (live || !since) {
    live = false;
    since = Date.now();
    pill(page.link, 'Not live', 'bad');
    document.body.classList.add('stale');
    say('The stream was lost. Trying again.');
  }
  const lost = document.getElementById('lost');
  put(lost, `The stream was lost at ${time(since)}: ${why}. Values are those of the last reading until it is back; it is tried again.`);
  show(lost, true);
};

const event = (kind, handle) => source.addEventListener(kind, message => {
  if (message.lastEventId) number_of_last = message.lastEventId;
  let data;
  try { data = JSON.parse(message.data); } catch { return; }
  handle(data);
});

const follow = () => {
  clearTimeout(timer);
  source?.close();
  heard = Date.now();
  source = new EventSource(address('events') + `?since=${number_of_last}`);
  source.onopen = found;
  source.onerror = () => {
    const refused = source.readyState === EventSource.CLOSED;
    lose(refused ? REFUSED : SILENT);
    if (refused) later();
  };
  event('status', status => {
    found();
    arrived(status);
    setTimeout(() => { opened = true; }, 1000);
    put(page.quiet, 'None since the agent started.');
  });
  event('gpu', data => take('gpu', data));
  event('degradation', data => take('degradation', data));
};

/** Tries again after a while, and shows the status meanwhile where that can be had. */
const later = () => {
  clearTimeout(timer);
  timer = setTimeout(follow, Math.min(30e3, 1e3 * 2 ** again++));
  if (document.hidden) return;
  fetched('status').then(arrived).catch(error => { if (!live) lose(error.message); });
};

// A browser opens six connections to a host, and a seventh tab would wait for ever: one that nobody
// sees does not keep its own.
let seen = Date.now();
setInterval(() => {
  if (!document.hidden) seen = Date.now();
  else if (Date.now() - seen > UNSEEN) {
    clearTimeout(timer);
    source.close();
  }
  if (source.readyState === EventSource.CLOSED) return;  // it is tried again later
  if (Date.now() - heard > Math.max(15e3, 3.5 * past.step)) {  // asleep, or cut off without a word
    if (live || !since) lose('nothing was heard of it');
    follow();
  }
}, 2e3);
addEventListener('online', follow);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && source.readyState === EventSource.CLOSED) {
    remember();
    follow();
  }
  draw();
});

fetched('status').then(arrived).catch(error => {
  if (!live) lose(error.message);
});
remember();
follow();
})();
