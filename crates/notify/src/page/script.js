// Everything is readable without this; it only says when the page has grown old.
(function () {
  var made = document.getElementById("made");
  var age = (Date.now() - Date.parse(made.dateTime)) / 1000;
  if (age > Number(made.dataset.old)) { document.getElementById("old").hidden = false; }
})();
