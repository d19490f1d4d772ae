for (const label of document.querySelectorAll('.lens label'))
  label.addEventListener('pointerenter', e => { if (e.pointerType === 'mouse') label.control.checked = true });
for (const sound of document.querySelectorAll('audio'))
  sound.addEventListener('play', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== sound) other.pause();
  });
